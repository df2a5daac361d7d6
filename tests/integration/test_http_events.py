"""Event streams: replayed from a cursor without a gap, then live, each user's own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from app.config import Settings
from app.services.event_stream import EventStream
from prometheus_client import REGISTRY

from tests import kernel
from tests.integration.factories import accept, image_plan, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.identities import project


@pytest.fixture
async def gate(settings: Settings) -> AsyncGenerator[Gateway]:
    async with gateway(settings) as opened:
        yield opened


@dataclass
class Received:
    id: str | None = None
    type: str | None = None
    data: dict[str, Any] = field(default_factory=dict[str, Any])


class Reader:
    """Reads a stream as a browser does."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments: list[str] = []

    async def block(self) -> Received | None:
        """The next block, None at the end of the stream."""
        found, touched = Received(), False
        async for line in self._lines:
            if not line and touched:
                return found
            name, _, value = line.partition(": ")
            match name:
                case "id":
                    found.id, touched = value, True
                case "event":
                    found.type, touched = value, True
                case "data":
                    found.data, touched = json.loads(value), True
                case "":
                    if value:
                        self.comments.append(value)
                case _:
                    touched = True
        return None

    async def event(self) -> Received:
        async with asyncio.timeout(15):
            found = await self.block()
        assert found is not None
        return found

    async def events(self, count: int) -> list[Received]:
        return [await self.event() for _ in range(count)]


@asynccontextmanager
async def stream(gate: Gateway, **options: Any) -> AsyncGenerator[tuple[Reader, str]]:  # noqa: ANN401 - httpx takes them
    """An open stream and the cursor it begins at."""
    headers = gate.headers() | options.pop("headers", {})
    async with gate.http.stream("GET", "/events", headers=headers, **options) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        reader = Reader(response.aiter_lines())
        first = await reader.event()
        assert (first.type, first.data, reader.comments) == (None, {}, ["connected"])
        assert first.id
        yield reader, first.id


async def make(gate: Gateway, task_id: str) -> None:
    """Three events: of the task, its job and its picture."""
    await accept(gate.db, image_plan(gate.user_id, task_id))
    gate.services.notifier.changed([(task_id, gate.user_id)])


async def test_events_come_live_and_are_replayed_from_any_place(gate: Gateway) -> None:
    async with stream(gate) as (reader, start):
        await make(gate, "task-event-01")
        live = await reader.events(3)
    assert [event.type for event in live] == ["task_update", "job_update", "asset_update"]
    assert {event.data["task_id"] for event in live} == {"task-event-01"}
    for place, expected in ((start, live), (live[0].id, live[1:]), (live[1].id, live[2:])):
        async with stream(gate, headers={"Last-Event-ID": place}) as (reader, _):
            assert await reader.events(len(expected)) == expected
    async with stream(gate, params={"last_event_id": live[1].id}) as (reader, _):
        assert await reader.event() == live[2]


async def test_nothing_is_lost_between_two_connections(gate: Gateway) -> None:
    async with stream(gate) as (_, start):
        pass
    await make(gate, "task-event-02")
    await kernel.cancel(gate.db, "task-event-02", gate.user_id)
    async with stream(gate, headers={"Last-Event-ID": start}) as (reader, _):
        seen = await reader.events(6)
    assert [event.data.get("status") for event in seen if event.type == "task_update"] == ["queued", "canceled"]


async def test_a_late_commit_is_never_skipped(gate: Gateway) -> None:
    insert = (
        "insert into makeit3d.events (type, user_id, task_id, payload) values ('task_update', $1, 'task-event-03', $2)"
    )
    slow = await asyncpg.connect(gate.services.settings.database_url.get_secret_value())
    try:
        async with stream(gate) as (reader, _):
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute(insert, gate.user_id, '{"n": 1}')  # numbered first, committed last
            await gate.db.execute(insert, gate.user_id, {"n": 2})
            gate.services.notifier.changed([("task-event-03", gate.user_id)])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await reader.block()
            await transaction.commit()  # says nothing to anybody
    finally:
        await slow.close()
    async with stream(gate, headers={"Last-Event-ID": "0-0"}) as (reader, _):
        assert [event.data["n"] for event in await reader.events(2)] == [1, 2]


async def test_hidden_events_follow_as_soon_as_they_can_be_read(gate: Gateway) -> None:
    slow = await asyncpg.connect(gate.services.settings.database_url.get_secret_value())
    try:
        async with stream(gate) as (reader, _):
            transaction = slow.transaction()
            await transaction.start()
            await slow.execute("select pg_current_xact_id()")  # an unrelated transaction holds the horizon
            await make(gate, "task-event-04")
            reading = asyncio.create_task(reader.events(3))
            await asyncio.sleep(0)
            await transaction.commit()
            assert [event.data["task_id"] for event in await reading] == ["task-event-04"] * 3
    finally:
        await slow.close()


async def test_a_stream_is_the_callers_own_and_may_be_of_one_task(gate: Gateway) -> None:
    other = await gate.another_user()
    async with (
        stream(gate, params={"task_id": "task-event-06"}) as (one, _),
        stream(gate, headers=gate.headers(other)) as (foreign, _),
    ):
        await make(gate, "task-event-05")
        await make(gate, "task-event-06")
        await accept(gate.db, image_plan(other, "task-event-07"))
        gate.services.notifier.changed([("task-event-07", other)])
        assert {event.data["task_id"] for event in await one.events(3)} == {"task-event-06"}
        assert {event.data["task_id"] for event in await foreign.events(3)} == {"task-event-07"}


async def test_a_killed_listener_comes_back_and_nothing_is_missed(gate: Gateway) -> None:
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'makeit3d listener'"
    await until(lambda: gate.services.events.listening)
    lost = REGISTRY.get_sample_value("makeit3d_listener_lost_total") or 0
    async with stream(gate) as (reader, _):
        await gate.db.execute(kill)
        await make(gate, "task-event-08")  # the hint goes nowhere, or to the new connection
        assert {event.data["task_id"] for event in await reader.events(3)} == {"task-event-08"}
        await until(lambda: gate.services.events.listening)
    await until(lambda: (REGISTRY.get_sample_value("makeit3d_listener_lost_total") or 0) > lost)


async def test_without_any_hint_the_net_finds_what_changed(gate: Gateway) -> None:
    deaf = EventStream(gate.services.settings.database_url.get_secret_value(), gate.db, net_seconds=0.05)
    deaf.start()
    try:
        reader = deaf.stream(gate.user_id, await deaf.cursor(gate.user_id, None))
        reading = asyncio.create_task(anext(reader))
        with deaf.watch_task("task-event-09", gate.user_id) as watch:
            assert watch is not None
            await until(lambda: deaf.streams == 1)
            await accept(gate.db, image_plan(gate.user_id, "task-event-09"))  # and nobody is told
            assert (await reading).type == "task_update"
            assert await watch.changed(10)
        await reader.aclose()
    finally:
        await deaf.aclose()


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1-2", "1-2-3", "9" * 19 + "-1", "1-" + "9" * 19, "1-1\t", "٣-1"])
async def test_a_cursor_that_is_not_ours_is_refused(gate: Gateway, cursor: str) -> None:
    answer = await gate.get("/events", params={"last_event_id": cursor})
    assert answer.status_code == 400
    assert answer.json()["code"] == "event_cursor_invalid"


async def test_streams_end_when_shutdown_begins(gate: Gateway) -> None:
    async with stream(gate) as (reader, _):
        gate.services.events.stop()
        async with asyncio.timeout(10):
            assert await reader.block() is None
    await until(lambda: gate.services.events.streams == 0)


async def test_a_client_that_goes_leaves_nothing_behind(gate: Gateway) -> None:
    async with stream(gate):
        await until(lambda: gate.services.events.streams == 1)
    await until(lambda: gate.services.events.streams == 0)


async def test_one_user_can_not_open_streams_without_end(gate: Gateway) -> None:
    events = gate.services.events
    cursor = await events.cursor(gate.user_id, None)
    held = [events.stream(gate.user_id, cursor) for _ in range(32)]
    readers = [asyncio.create_task(anext(reader)) for reader in held]
    await until(lambda: events.streams == 32)
    answer = await gate.get("/events")
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) > 0
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for reader in held:
        await reader.aclose()


async def test_streams_that_come_at_one_moment_are_counted_too(gate: Gateway) -> None:
    events = gate.services.events
    cursor = await events.cursor(gate.user_id, None)  # all of them have passed this look
    readers = [events.stream(gate.user_id, cursor) for _ in range(40)]
    reads = [asyncio.create_task(anext(reader, None)) for reader in readers]
    await until(lambda: sum(read.done() for read in reads) == 8)
    assert events.streams == 32
    for read in reads:
        read.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    for reader in readers:
        await reader.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_stream_ends_with_its_token_and_goes_on_with_a_fresh_one(database: str, tmp_path: Path) -> None:
    async with (
        project() as signer,
        gateway(settings_for(database, tmp_path, supabase_url=signer.supabase_url)) as gate,
    ):

        def bearer(seconds: int) -> dict[str, str]:
            token = signer.token(gate.user_id, exp=int(time.time()) + seconds)
            return {"Authorization": f"Bearer {token}"}

        async with stream(gate, headers=bearer(4)) as (reader, start):
            last = await reader.event()
            assert (last.type, last.data, last.id) == ("stream_end", {"code": "token_expired"}, None)
            async with asyncio.timeout(15):
                assert await reader.block() is None
        await make(gate, "task-event-10")
        async with stream(gate, headers=bearer(60) | {"Last-Event-ID": start}) as (reader, _):
            assert {event.data["task_id"] for event in await reader.events(3)} == {"task-event-10"}
        # for requests that end at once an ended token serves some seconds longer: clocks differ
        assert (await gate.http.get("/tasks", headers=bearer(-1))).status_code == 200
        answer = await gate.http.get("/events", headers=bearer(-1))
        assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_a_long_poll_ends_with_its_token(database: str, tmp_path: Path) -> None:
    async with (
        project() as signer,
        gateway(settings_for(database, tmp_path, supabase_url=signer.supabase_url)) as gate,
    ):
        await make(gate, "task-event-11")
        headers = {"Authorization": f"Bearer {signer.token(gate.user_id, exp=int(time.time()) + 4)}"}
        async with asyncio.timeout(20):  # it would wait for 30
            answer = await gate.http.get("/tasks/task-event-11/status?wait=30", headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (200, "pending")
