"""Two API processes, each with its own cache of polls, while tasks are accepted, claimed, finished and canceled
elsewhere and the listening connections die. Every answer is held against the order of commits.

A poll that begins after a POST was answered shows that request or a newer one, if what it shows has ended. What it
shows as unfinished had not ended for more than the longest life of an entry, and nobody reads what is another's.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from app.config import Settings, child_environment
from app.db import claims
from app.db.pool import Database
from app.db.settle import settle
from app.domain.jobs import Settlement
from app.embedded.process import Child
from app.services.notifier import Notifier
from app.services.poll_cache import LONGEST_SECONDS
from pydantic import SecretStr

from tests.chaos.databases import socket_of, tcp_dsn
from tests.chaos.proxy import Proxy
from tests.e2e.gateway import REPOSITORY
from tests.integration.factories import make_worker, settings_for
from tests.integration.test_http_tasks import complete
from tests.servers import free_port

pytestmark = pytest.mark.chaos

ENDED = ("complete", "failed", "canceled")
STEPS = 120
POLLERS = 4
TASKS = 3
PATIENCE = 60.0


@dataclass
class Api:
    """A process, and the proxy before its listening connection alone."""

    http: httpx.AsyncClient
    listener: Proxy

    async def metric(self, name: str) -> float:
        lines = (await self.http.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@dataclass
class Told:
    """What an answer to a POST promised about a task: requests by their number, in the order of their commits."""

    accepted: list[str] = field(default_factory=list[str])
    jobs: list[str] = field(default_factory=list[str])


@dataclass
class World:
    db: Database
    apis: list[Api]
    service_key: str
    users: list[UUID]
    notifier: Notifier
    random: random.Random
    told: dict[str, Told] = field(default_factory=dict[str, Told])
    owner: dict[str, UUID] = field(default_factory=dict[str, UUID])
    polls: int = 0
    finals: int = 0

    def headers(self, user: UUID) -> dict[str, str]:
        return {"apikey": self.service_key, "X-User-Id": str(user)}

    # --- writers --------------------------------------------------------------------------------------------

    async def accept(self, task: str) -> None:
        body = {"task_id": task, "prompt": f"a fox, {uuid4()}"}
        api = self.random.choice(self.apis)
        answer = await api.http.post("/generate/text-to-image", json=body, headers=self.headers(self.owner[task]))
        assert answer.status_code == 202, answer.text
        self.told[task].accepted.append(answer.json()["request_id"])
        self.told[task].jobs.append(answer.json()["job_id"])

    async def cancel(self, task: str) -> None:
        api = self.random.choice(self.apis)
        answer = await api.http.post(f"/tasks/{task}/cancel", headers=self.headers(self.owner[task]))
        assert answer.status_code in (200, 409), answer.text

    async def work(self, *, hint: bool) -> None:
        """As a worker in another process; without a hint it died before it sent one."""
        worker = await make_worker(self.db)
        claimed = await claims.claim(self.db, worker_id=worker.id, lanes=worker.lanes, limit=2)
        if hint:
            self.notifier.changed((job.task_id, job.user_id) for job in claimed.jobs)
        for job in claimed.jobs:
            done = await settle(self.db, [Settlement(job, await complete(job, self.db))])
            if hint:
                self.notifier.changed(done.tasks)

    # --- readers --------------------------------------------------------------------------------------------

    async def poll(self) -> None:
        task = self.random.choice(list(self.told))
        promised = len(self.told[task].accepted)
        if not promised:
            return
        name = self.random.choice([task, task, task, self.random.choice(self.told[task].jobs)])
        user = self.random.choice(self.users)
        api = self.random.choice(self.apis)
        began = await self.db.fetchval("select clock_timestamp()")
        answer = await api.http.get(f"/tasks/{name}/status", headers=self.headers(user))
        if user != self.owner[task]:
            assert answer.status_code == 404, (task, user, answer.text)
            return
        assert answer.status_code == 200, answer.text
        document = answer.json()
        assert document["task_id"] == task
        self.polls += 1
        if name != task:
            assert document["job_id"] == name
        if document["status"] in ENDED:
            self.finals += 1
            await self._is_of_newest(task, name, promised, document)
        else:
            await self._had_not_long_ended(document, began)

    async def _is_of_newest(self, task: str, name: str, promised: int, document: dict[str, Any]) -> None:
        number = await self.db.fetchval("select number from requests where id = $1", UUID(document["request_id"]))
        newest_promised = await self.db.fetchval(
            "select max(number) from requests where id = any($1)",
            [UUID(found) for found in self.told[task].accepted[:promised]],
        )
        assert name != task or number >= newest_promised, f"{task}: an old final status after a 202"
        row = await self.db.fetchrow("select status from requests where id = $1", UUID(document["request_id"]))
        assert row is not None
        assert {"completed": "complete"}.get(row["status"], row["status"]) == document["status"]

    async def _had_not_long_ended(self, document: dict[str, Any], began: Any) -> None:  # noqa: ANN401
        """By the server's own clock, on both sides: how slow anybody is does not matter."""
        ended = await self.db.fetchval("select finished_at from requests where id = $1", UUID(document["request_id"]))
        age = 0.0 if ended is None else (began - ended).total_seconds()
        assert age < LONGEST_SECONDS, f"unfinished {age:.1f} s after its end"

    async def run(self, disturb: Callable[[int], None]) -> None:
        writing = True

        async def reader() -> None:
            while writing:
                await self.poll()

        async with asyncio.TaskGroup() as group:
            for _ in range(POLLERS):
                group.create_task(reader())
            for step in range(STEPS):
                disturb(step)
                task = self.random.choice(list(self.told))
                match self.random.choice(["accept", "work", "work", "silent", "cancel"]):
                    case "accept":
                        await self.accept(task)
                    case "cancel":
                        await self.cancel(task)
                    case word:
                        await self.work(hint=word == "work")
            writing = False
        assert self.finals > 0
        assert self.polls > self.finals


@asynccontextmanager
async def api(settings: Settings, listener: Proxy, home: Path, name: str) -> AsyncGenerator[Api]:
    child = Child(
        name=name,
        command=[sys.executable, "-m", "app.cli", "api"],
        log=home / f"{name}.log",
        environment=child_environment(settings),
        cwd=str(REPOSITORY),
    )
    child.launch()
    try:
        async with httpx.AsyncClient(base_url=settings.public_base_url, timeout=30, trust_env=False) as http:
            async with asyncio.timeout(PATIENCE):
                while not await _is_alive(http):
                    assert child.exit_code() is None, (home / f"{name}.log").read_text()[-3000:]
                    await asyncio.sleep(0.1)
            yield Api(http, listener)
    finally:
        child.kill()


async def _is_alive(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/live")).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
async def world(db: Database, database: str, tmp_path: Path) -> AsyncGenerator[World]:
    async with AsyncExitStack() as stack:
        apis: list[Api] = []
        for number in range(2):
            listener = stack.enter_context(Proxy.to(socket_of(database)))
            port = free_port()
            settings = settings_for(
                database,
                tmp_path,
                api_port=port,
                public_base_url=f"http://127.0.0.1:{port}",
                database_listen_url=SecretStr(tcp_dsn(database, listener.port)),
                log_format="json",
            )
            apis.append(await stack.enter_async_context(api(settings, listener, tmp_path, f"api{number}")))
        key = settings_for(database, tmp_path).supabase_service_key.get_secret_value()
        users = [uuid4(), uuid4()]
        for user in users:
            await db.execute("insert into auth.users (id) values ($1)", user)
        notifier = Notifier(db)
        found = World(db, apis, key, users, notifier, random.Random(8))
        for number in range(TASKS):
            task = f"task-polled-{number}"
            found.told[task], found.owner[task] = Told(), users[number % 2]
            await found.accept(task)
        yield found
        await notifier.aclose()


async def from_cache(world: World) -> list[float]:
    return [await api.metric('makeit3d_polls_total{source="cache"}') for api in world.apis]


async def served(world: World) -> None:
    """Until each process has answered from its cache."""
    task = next(iter(world.told))
    await world.accept(task)
    async with asyncio.timeout(PATIENCE):
        while min(await from_cache(world)) == 0:
            for api in world.apis:
                await api.http.get(f"/tasks/{task}/status", headers=world.headers(world.owner[task]))
            await asyncio.sleep(0.05)


async def test_answers_are_true_while_tasks_change(world: World) -> None:
    await served(world)
    await world.run(lambda _: None)
    assert min(await from_cache(world)) > 0


async def test_answers_are_true_while_the_listener_is_killed(world: World) -> None:
    await served(world)
    killed: list[asyncio.Task[int]] = []
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'makeit3d listener'"

    def disturb(step: int) -> None:
        if step % 15 == 7:
            killed.append(asyncio.ensure_future(world.db.execute(f"{kill} and datname = current_database()")))

    await world.run(disturb)
    assert sum([await task for task in killed]) > 0
    assert sum([await api.metric("makeit3d_listener_lost_total") for api in world.apis]) > 0


async def test_answers_are_true_while_the_listener_hears_nothing(world: World) -> None:
    """Half-open connections: they are alive to the process, and no hint comes through."""
    await served(world)

    def disturb(step: int) -> None:
        api = world.apis[step // 30 % 2]
        if step % 30 == 5:
            api.listener.stall()
        elif step % 30 == 25:
            api.listener.heal()

    await world.run(disturb)


async def test_a_silent_listener_ends_what_is_served(world: World) -> None:
    await served(world)
    task, frozen = next(iter(world.told)), world.apis[0]
    frozen.listener.stall()
    path, headers = f"/tasks/{task}/status", world.headers(world.owner[task])
    async with asyncio.timeout(PATIENCE):
        while True:  # until three polls in a row, whose entries would be fresh, were all read from the database
            before = await frozen.metric('makeit3d_polls_total{source="cache"}')
            for _ in range(3):
                await frozen.http.get(path, headers=headers)
            if await frozen.metric('makeit3d_polls_total{source="cache"}') == before:
                break
    await world.cancel(task)
    assert (await frozen.http.get(path, headers=headers)).json()["status"] == "canceled"
