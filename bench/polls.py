"""Status polls per second: hot, cold and 304, beside what the server, the framework and one query allow."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
from tests.e2e.gateway import Gateway, User

from bench.bench import Bench
from bench.figures import Figure
from bench.load import Load, ceiling, load, request
from bench.rounds import Target, interleave
from bench.rows import copy_task
from bench.servers import Constants, constants, gateway

_HOT_TASKS = 16
_COLD_TASKS = 20_000  # more than a round reads: a cache of a few seconds never holds what is asked next


def polls(bench: Bench) -> list[Figure]:
    bench.say("polls: starting the gateway and the constants")
    # the first job takes the only slot and the others wait: what is polled does not change meanwhile
    with gateway(SANDBOX_WORK_SECONDS="600", BFF_TRIPO_H_SLOTS="1") as running:
        user = running.new_user()
        answer = user.post("/generate/text-to-model", {"task_id": str(uuid4()), "prompt": "a small wooden boat"})
        answer.raise_for_status()
        waiting = user.ask("text-to-model")
        ids = asyncio.run(_copies(running, waiting, _COLD_TASKS // (10 if bench.quick else 1)))
        with constants(status=user.status(waiting), accepted=answer.json(), dsn=running.dsn()) as other:
            figures = interleave(bench, "polls", _targets(bench, running, other, user, ids))
        running.kill()
    return figures


def _targets(bench: Bench, running: Gateway, other: Constants, user: User, ids: list[str]) -> list[Target]:
    api, token = running.api_url, user.token
    hot, rest = ids[:_HOT_TASKS], ids[_HOT_TASKS:]
    known = {task: user.http.get(_path(task)).headers["etag"] for task in hot}
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
