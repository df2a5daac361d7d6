"""Accepts per second beside a constant POST, and what of it is the database's part beside the bare driver."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
from app.db.pool import Database
from app.queue.plans import RequestPlan
from tests import kernel
from tests.integration.factories import make_user, model_plan

from bench.backlog import on_postgres, open_database
from bench.bench import Bench
from bench.figures import Figure
from bench.load import CONNECTIONS, UNIQUE, Load, ceiling, load, request
from bench.rounds import Target, interleave
from bench.servers import PROMPT, Busy, busy_gateway

_MOST_PER_SECOND = 6000  # plans are made before the clock starts


def accepts(bench: Bench) -> list[Figure]:
    bench.say("accepts: starting the gateway and the constants")
    with busy_gateway() as busy:
        figures = interleave(bench, "accepts", _targets(bench, busy))
    return figures + _database_part(bench)


def _targets(bench: Bench, busy: Busy) -> list[Target]:
    running, framework, token = busy.gateway, busy.constants.framework, busy.user.token
    body = json.dumps({"task_id": UNIQUE, "prompt": PROMPT})
    constant = request(framework, "POST", "/constant", token=token, body=body)
    accept = request(running.api_url, "POST", "/generate/text-to-model", token=token, body=body)

    def post(url: str, text: str, connections: int) -> Load:
        return load(url, [text], seconds=bench.seconds, expected=202, connections=connections)

    return [
        Target("accepts.generator", "load generator's own ceiling", lambda _: ceiling(bench.seconds)),
        Target(
            "accepts.constant_post",
            f"constant POST through the framework, {CONNECTIONS} clients",
            lambda _: post(framework, constant, CONNECTIONS),
        ),
        Target(
            "accepts.gateway",
            f"accept, {CONNECTIONS} clients",
            lambda _: post(running.api_url, accept, CONNECTIONS),
            running,
        ),
        Target("accepts.one_client", "accept, one client", lambda _: post(running.api_url, accept, 1), running),
    ]


# --- the database's part, without HTTP ---------------------------------------------------------------------------


def _database_part(bench: Bench) -> list[Figure]:
    bench.say("accepts: starting Postgres for the database's part")
    return on_postgres(lambda dsns, home: _measure(bench, dsns[0], home))


async def _measure(bench: Bench, dsn: str, home: Path) -> list[Figure]:
    ours: list[float] = []
    bare: list[float] = []
    async with open_database(dsn, home) as database:
        user = await make_user(database)
        connections = [await asyncpg.connect(dsn) for _ in range(CONNECTIONS)]
        await _round(bench, _accept_with_ours(database), [None] * CONNECTIONS, _plans(user, 200))  # warm
        for _ in bench.each_round("accepts, database"):
            plans = _plans(user, int(_MOST_PER_SECOND * bench.seconds))
            ours.append(await _round(bench, _accept_with_ours(database), [None] * CONNECTIONS, plans))
            statements = [_statement(database, plan) for plan in _plans(user, len(plans))]
            bare.append(await _round(bench, _execute, connections, statements))
        for connection in connections:
            await connection.close()
    how = f"{CONNECTIONS} at a time on one loop; Postgres durable"
    return [
        Figure("accepts.database", "database part of accept", "/s", tuple(ours), f"{how}"),
        Figure("accepts.bare_driver", "asyncpg, the same statement alone", "/s", tuple(bare), how),
    ]


def _accept_with_ours(database: Database) -> Callable[[None, RequestPlan], Awaitable[None]]:
    async def accept(_: None, plan: RequestPlan) -> None:
        await kernel.accept(database, plan)

    return accept


async def _execute(connection: asyncpg.Connection, statement: tuple[Any, ...]) -> None:
    await connection.fetchrow(*statement)


def _statement(database: Database, plan: RequestPlan) -> tuple[Any, ...]:
    """The product's statement with its JSON made beforehand."""
    accept = kernel.queue_of(database).statements.accept
    values = accept.arguments(plan.arguments(None))
    return (accept.text, *(orjson.dumps(v).decode() if isinstance(v, list | dict) else v for v in values))


def _plans(user: UUID, number: int) -> list[RequestPlan]:
    return [model_plan(user, str(uuid4())) for _ in range(number)]


async def _round(
    bench: Bench, work: Callable[[Any, Any], Awaitable[None]], workers: Sequence[object], items: Sequence[object]
) -> float:
    """Items per second, until the time or the items are over."""
    queue: Iterator[object] = iter(items)
    done = 0
    began = time.perf_counter()

    async def go(worker: object) -> None:
        nonlocal done
        for item in queue:
            await work(worker, item)
            done += 1
            if time.perf_counter() - began > bench.seconds:
                return

    await asyncio.gather(*(go(worker) for worker in workers))
    return done / (time.perf_counter() - began)
