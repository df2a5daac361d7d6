"""Two API processes, each with its own cache of polls, while tasks are accepted, claimed, finished and canceled
elsewhere and the listening connections die. Every answer is held against the order of commits.

A poll that begins after a POST was answered shows that request or a newer one, if what it shows has ended, or if the
same process answered the POST. What it shows as unfinished had not ended for more than the longest life of an entry,
what a change overtook is never kept, and nobody reads what is another's.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from app.ai_clients.registry import build_registry
from app.config import child_environment
from app.db import events
from app.db import pools as pool_rows
from app.db.pool import Database
from app.domain.jobs import Settlement
from app.embedded.process import Child
from app.services.notifier import Notifier
from app.services.poll_cache import LONGEST_SECONDS
from pydantic import SecretStr

from tests import kernel
from tests.chaos.databases import socket_of, tcp_dsn
from tests.chaos.proxy import Proxy
from tests.e2e.gateway import REPOSITORY, wait_for
from tests.integration.factories import make_user, make_worker, settings_for
from tests.integration.test_http_tasks import complete
from tests.loopback import loopback
from tests.servers import PostgresServer, free_port

pytestmark = pytest.mark.chaos

ENDED = ("complete", "failed", "canceled")
STEPS = 80
POLLERS = 4
TASKS = 3
PATIENCE = 60.0


@dataclass
class Api:
    """A client of a process."""

    http: httpx.AsyncClient
    process: Process

    @property
    def listener(self) -> Proxy:
        return self.process.listener

    @property
    def database(self) -> Proxy:
        return self.process.database

    async def metric(self, name: str) -> float:
        lines = (await self.http.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@dataclass
class Told:
    """What an answer to a POST promised about a task: requests by their number, in the order of their commits."""

    accepted: list[str] = field(default_factory=list[str])
    by_process: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
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
        process = self.random.randrange(len(self.apis))
        http = self.apis[process].http
        answer = await http.post("/generate/text-to-image", json=body, headers=self.headers(self.owner[task]))
        assert answer.status_code == 202, answer.text
        self.told[task].accepted.append(answer.json()["request_id"])
        self.told[task].by_process.setdefault(process, []).append(answer.json()["request_id"])
        self.told[task].jobs.append(answer.json()["job_id"])

    async def cancel(self, task: str) -> None:
        api = self.random.choice(self.apis)
        answer = await api.http.post(f"/tasks/{task}/cancel", headers=self.headers(self.owner[task]))
        assert answer.status_code in (200, 409), answer.text

    async def work(self, *, hint: bool) -> int:
        """As a worker in another process; without a hint it died before it sent one. How many jobs it ended."""
        worker = await make_worker(self.db)
        claimed = await kernel.claim(self.db, worker_id=worker.id, lanes=worker.lanes, limit=2)
        if hint:
            self.notifier.changed((job.task_id, job.user_id) for job in claimed.jobs)
        for job in claimed.jobs:
            done = await kernel.finish(self.db, [Settlement(job, await complete(job, self.db))])
            if hint:
                self.notifier.changed(done.committed.tasks)
        return len(claimed.jobs)

    # --- readers --------------------------------------------------------------------------------------------

    async def poll(self) -> None:
        task = self.random.choice(list(self.told))
        promised = list(self.told[task].accepted)
        if not promised:
            return
        name = self.random.choice([task, task, task, self.random.choice(self.told[task].jobs)])
        user = self.random.choice(self.users)
        process = self.random.randrange(len(self.apis))
        promised_here = list(self.told[task].by_process.get(process, ()))
        began = await self.db.fetchval("select clock_timestamp()")
        answer = await self.apis[process].http.get(f"/tasks/{name}/status", headers=self.headers(user))
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
            await self._is_true(document)
        else:
            promised = promised_here
            await self._had_not_long_ended(document, began)
        if name == task:
            await self._is_not_older(document, promised)

    async def _is_true(self, document: dict[str, Any]) -> None:
        status = await self.db.fetchval(
            "select status from makeit3d.requests where id = $1", UUID(document["request_id"])
        )
        assert {"completed": "complete"}.get(status, status) == document["status"]

    async def _is_not_older(self, document: dict[str, Any], promised: list[str]) -> None:
        """It shows the newest request that had been promised, or one that was accepted after it."""
        is_older = await self.db.fetchval(
            "select shown.number < (select max(number) from makeit3d.requests where id = any($2))"
            " from makeit3d.requests shown where shown.id = $1",
            UUID(document["request_id"]),
            [UUID(found) for found in promised],
        )
        assert not is_older, f"an old {document['status']} status after a 202"

    async def _had_not_long_ended(self, document: dict[str, Any], began: Any) -> None:  # noqa: ANN401
        """By the server's own clock, on both sides: how slow anybody is does not matter."""
        ended = await self.db.fetchval(
            "select finished_at from makeit3d.requests where id = $1", UUID(document["request_id"])
        )
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


@dataclass(frozen=True, slots=True)
class Process:
    """An API, with the proxies before its listening connection and before its others."""

    url: str
    child: Child
    listener: Proxy
    database: Proxy

    @classmethod
    @contextmanager
    def running(cls, dsn: str, home: Path, name: str) -> Generator[Process]:
        with Proxy.to(socket_of(dsn)) as listener, Proxy.to(socket_of(dsn)) as database:
            port = free_port()
            settings = settings_for(
                tcp_dsn(dsn, database.port),
                home,
                api_port=port,
                public_base_url=f"http://127.0.0.1:{port}",
                database_listen_url=SecretStr(tcp_dsn(dsn, listener.port)),
                log_format="json",
            )
            child = Child(
                name=name,
                command=[sys.executable, "-m", "app.cli", "api"],
                log=home / f"{name}.log",
                environment=child_environment(settings),
                cwd=str(REPOSITORY),
            )
            child.launch()
            try:
                yield cls(settings.public_base_url, child, listener, database)
            finally:
                child.kill()

    def is_alive(self) -> bool | None:
        assert self.child.exit_code() is None, self.child.log.read_text()[-3000:]
        with suppress(httpx.TransportError):
            return loopback.get(f"{self.url}/health/live").is_success or None
        return None


@pytest.fixture(scope="module")
def shared(
    postgres18: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[str, list[Process]]]:
    """A database and two processes for all tests of the module."""
    home = tmp_path_factory.mktemp("polls")
    with ExitStack() as stack:
        dsn = stack.enter_context(postgres18.fresh_database())
        processes = [stack.enter_context(Process.running(dsn, home, f"api{number}")) for number in range(2)]
        for process in processes:
            wait_for(process.is_alive)
        yield dsn, processes


@pytest.fixture
async def world(shared: tuple[str, list[Process]], tmp_path: Path) -> AsyncGenerator[World]:
    dsn, processes = shared
    settings = settings_for(dsn, tmp_path)
    async with AsyncExitStack() as stack:
        apis = [
            Api(
                await stack.enter_async_context(httpx.AsyncClient(base_url=found.url, timeout=30, trust_env=False)),
                found,
            )
            for found in processes
        ]
        db = await Database.open(settings, kernel.ASSET_KINDS, application_name="makeit3d test")
        stack.push_async_callback(db.close)
        await pool_rows.ensure(
            db, {name: (pool.provider, pool.slots) for name, pool in build_registry().pools(settings).items()}
        )
        users = [await make_user(db) for _ in range(2)]
        notifier = Notifier(db)
        stack.push_async_callback(notifier.aclose)
        key = settings.supabase_service_key.get_secret_value()
        found = World(db, apis, key, users, notifier, random.Random(8))
        for number in range(TASKS):
            task = f"task-polled-{uuid4()}"
            found.told[task], found.owner[task] = Told(), users[number % 2]
            await found.accept(task)
        yield found
        for process in processes:
            process.listener.heal()
            process.database.heal()
        while await found.work(hint=True):
            pass


async def from_cache(world: World) -> list[float]:
    return [await api.metric('makeit3d_polls_total{source="cache"}') for api in world.apis]


async def served(world: World) -> list[float]:
    """Until each process has answered from its cache; how often they did."""
    task = next(iter(world.told))
    await world.accept(task)
    before = await from_cache(world)
    async with asyncio.timeout(PATIENCE):
        while not all(now > then for now, then in zip(await from_cache(world), before, strict=True)):
            for api in world.apis:
                await api.http.get(f"/tasks/{task}/status", headers=world.headers(world.owner[task]))
            await asyncio.sleep(0.05)
    return await from_cache(world)


async def test_answers_are_true_while_tasks_change(world: World) -> None:
    before = await served(world)
    await world.run(lambda _: None)
    assert all(now > then for now, then in zip(await from_cache(world), before, strict=True))


async def test_answers_are_true_while_the_listener_is_killed(world: World) -> None:
    await served(world)
    lost = sum([await api.metric("makeit3d_listener_lost_total") for api in world.apis])
    killed: list[asyncio.Task[int]] = []
    kill = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'makeit3d listener'"

    def disturb(step: int) -> None:
        if step % 15 == 7:
            killed.append(asyncio.ensure_future(world.db.execute(f"{kill} and datname = current_database()")))

    await world.run(disturb)
    assert sum([await task for task in killed]) > 0
    assert sum([await api.metric("makeit3d_listener_lost_total") for api in world.apis]) > lost


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


async def test_a_read_that_a_change_overtook_is_not_kept(world: World) -> None:
    """Its answer is on its way while the change is committed and heard of."""
    await served(world)
    task, process = next(iter(world.told)), world.apis[0]
    path, headers = f"/tasks/{task}/status", world.headers(world.owner[task])
    await process.http.post(f"/tasks/{task}/cancel", headers=headers)
    body = {"task_id": task, "prompt": "a fox that is overtaken"}
    (await process.http.post("/generate/text-to-image", json=body, headers=headers)).raise_for_status()
    process.database.mute()
    began = await world.db.fetchval("select clock_timestamp()")
    overtaken = asyncio.create_task(process.http.get(path, headers=headers))
    await eventually(
        world.db,
        "select exists (select from pg_stat_activity where application_name = 'makeit3d api' and state = 'idle'"
        " and datname = current_database() and query_start > $1 and query like '%with request as%')",
        began,
    )
    while await world.db.fetchval("select status from makeit3d.tasks where id = $1", task) != "completed":
        await world.work(hint=True)
    await world.notifier.aclose()
    last = f"after-all-hints-{uuid4()}"
    await events.notify(world.db, [f"{last}/"])  # they arrive in the order of commits
    async with asyncio.timeout(PATIENCE):
        while not process.listener.has_passed(last.encode()):
            await asyncio.sleep(0.02)
    process.database.heal()
    assert (await overtaken).json()["status"] == "pending"
    assert (await process.http.get(path, headers=headers)).json()["status"] == "complete"


async def eventually(db: Database, question: str, *args: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await db.fetchval(question, *args):
            await asyncio.sleep(0.02)
