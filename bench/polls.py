"""Status polls per second: hot, cold and 304, beside what the server, the framework and one query allow."""

from __future__ import annotations

import asyncio

import asyncpg
from tests.e2e.gateway import Gateway

from bench.bench import Bench
from bench.figures import Figure
from bench.load import Load, ceiling, load, request
from bench.rounds import Target, interleave
from bench.rows import copy_task
from bench.servers import Busy, busy_gateway

_HOT_TASKS = 16
_COLD_TASKS = 20_000  # more than a round reads: a cache of a few seconds never holds what is asked next


def polls(bench: Bench) -> list[Figure]:
    bench.say("polls: starting the gateway and the constants")
    with busy_gateway() as busy:
        ids = asyncio.run(_copies(busy.gateway, busy.waiting, _COLD_TASKS // (10 if bench.quick else 1)))
        return interleave(bench, "polls", _targets(bench, busy, ids))


def _targets(bench: Bench, busy: Busy, ids: list[str]) -> list[Target]:
    running, other, token = busy.gateway, busy.constants, busy.user.token
    api, hot, rest = running.api_url, ids[:_HOT_TASKS], ids[_HOT_TASKS:]
    known = {task: busy.user.http.get(_path(task)).headers["etag"] for task in hot}
    raw = [request(other.raw, "GET", _path(ids[0]), token=token)]
    constant = [request(other.framework, "GET", f"/constant/{ids[0]}", token=token)]
    rows = [request(other.framework, "GET", f"/row/{task}", token=token) for task in rest]
    hot_polls = [request(api, "GET", _path(task), token=token) for task in hot]
    cold_polls = [request(api, "GET", _path(task), token=token) for task in rest]
    unchanged = [request(api, "GET", _path(task), token=token, If_None_Match=tag) for task, tag in known.items()]

    def get(url: str, requests: list[str], expected: int = 200) -> Load:
        return load(url, requests, seconds=bench.seconds, expected=expected)

    def cold(number: int) -> Load:
        start = number * len(cold_polls) // bench.rounds
        return get(api, cold_polls[start:] + cold_polls[:start])

    return [
        Target("polls.generator", "load generator's own ceiling", lambda _: ceiling(bench.seconds)),
        Target("polls.raw_asgi", "raw ASGI constant", lambda _: get(other.raw, raw)),
        Target("polls.framework", "framework's constant, response model", lambda _: get(other.framework, constant)),
        Target("polls.primary_key", "framework, one query by primary key", lambda _: get(other.framework, rows)),
        Target("polls.hot", f"poll, hot: {len(hot)} tasks", lambda _: get(api, hot_polls), running),
        Target("polls.cold", f"poll, cold: {len(rest):,} tasks", cold, running),
        Target("polls.not_modified", "poll, 304", lambda _: get(api, unchanged, 304), running),
    ]


def _path(task_id: str) -> str:
    return f"/tasks/{task_id}/status"


async def _copies(running: Gateway, task_id: str, copies: int) -> list[str]:
    connection = await asyncpg.connect(running.dsn())
    try:
        return await copy_task(connection, task_id, copies)
    finally:
        await connection.close()
