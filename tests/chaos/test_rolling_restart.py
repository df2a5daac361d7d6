"""Warm shutdown of real worker processes: what waits is handed back at once, what has money in the air is finished, and
a deploy under load loses, repeats and leaves unknown nothing. Payments are counted at the providers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from tests.e2e.gateway import PATIENCE, STOCK, Gateway, User, gateway_in_new_home, wait_for
from tests.loopback import loopback

pytestmark = pytest.mark.chaos

LONG = 600.0  # seconds of provider work: far longer than the suite waits for anything
ROUNDS = 2
CLIENTS = 2
CLIENT_PATIENCE = 240.0  # seconds; a limit for a hung test: every process is restarted meanwhile


@pytest.fixture(scope="module")
def gateway() -> Generator[Gateway]:
    # a worker that leaves says so: nothing here may depend on its time to live
    with gateway_in_new_home(**STOCK, BFF_WORKER_TTL_SECONDS="30") as running:
        yield running


@pytest.fixture
def user(gateway: Gateway) -> Generator[User]:
    yield gateway.new_user()
    gateway.knobs(work_seconds=0.3)


def rows(gateway: Gateway, query: str, *values: object) -> list[dict[str, Any]]:
    async def fetch() -> list[dict[str, Any]]:
        connection = await asyncpg.connect(gateway.dsn())
        try:
            return [dict(row) for row in await connection.fetch(query, *values)]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def registered(gateway: Gateway) -> dict[int, bool]:
    """Process ids of the workers of the normal lane, and whether each is stopping."""
    return {
        row["pid"]: row["stopping"]
        for row in rows(gateway, "select * from makeit3d.workers where 'normal' = any(lanes)")
    }


def own_worker(gateway: Gateway) -> int:
    """The stack's worker of the normal lane, when it is there and ready."""

    def ready() -> int | None:
        pids = gateway.pids("worker --lane normal")
        return pids[0] if pids and registered(gateway).get(pids[0]) is False else None

    return wait_for(ready)


@contextlib.contextmanager
def one_more_worker(gateway: Gateway) -> Generator[subprocess.Popen[bytes]]:
    with gateway.more_workers(1) as (worker,):
        wait_for(lambda: registered(gateway).get(worker.pid) is False or None)
        yield worker


def leave(gateway: Gateway, worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert worker.pid not in registered(gateway)


def job_of(gateway: Gateway, task_id: str) -> dict[str, Any]:
    (job,) = rows(
        gateway,
        "select j.status, j.failures, j.crashes, j.attempt, w.pid, c.state from makeit3d.jobs j"
        " left join makeit3d.workers w on w.id = j.worker_id left join makeit3d.provider_calls c on c.job_id = j.id"
        " where j.task_id = $1",
        task_id,
    )
    return job


def test_a_job_at_a_polled_provider_is_handed_back_at_once(gateway: Gateway, user: User) -> None:
    gateway.knobs(work_seconds=LONG)
    before = len(gateway.paid())
    first = own_worker(gateway)
    task = str(uuid4())
    user.post("/generate/text-to-model", {"task_id": task, "prompt": "a boat in no hurry"})
    wait_for(lambda: job_of(gateway, task)["state"] == "submitted" or None)
    with one_more_worker(gateway) as other:
        assert job_of(gateway, task)["pid"] == first
        # the supervisor starts another in its place; what counts is that the provider's 600 seconds do not hold it
        os.kill(first, signal.SIGTERM)
        wait_for(lambda: first not in gateway.pids("worker") or None)
        wait_for(lambda: job_of(gateway, task)["status"] == "running" or None)
        again = job_of(gateway, task)
        assert again["pid"] != first
        assert (again["attempt"], again["failures"], again["crashes"]) == (2, 0, 0)
        own_worker(gateway)
        leave(gateway, other)
    reference = next(row for row in gateway.ledger() if row["kind"] == "text-to-model")["reference"]
    wait_for(lambda: job_of(gateway, task)["status"] == "running" or None)
    assert job_of(gateway, task)["state"] == "submitted"
    assert len(gateway.paid()) == before + 1
    assert user.post(f"/tasks/{task}/cancel", {}).json()["status"] == "canceled"
    end = loopback.post(
        f"{gateway.sandbox_url}/admin/tasks/{reference}/end",
        json={"status": "cancelled"},
        headers={"X-Admin-Key": "sandbox-admin"},
    )
    assert end.is_success


def test_an_open_image_call_is_drained(gateway: Gateway, user: User) -> None:
    """The worker stays until the reply is there; the reply is recorded before it leaves."""
    before = len(gateway.paid())
    worker = own_worker(gateway)
    gateway.knobs(work_seconds=4)
    task = str(uuid4())
    user.post("/generate/text-to-image", {"task_id": task, "prompt": "a fox in the air"})
    wait_for(lambda: True if len(gateway.paid()) > before else None)
    assert job_of(gateway, task)["pid"] == worker
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: worker not in gateway.pids("worker") or None)
    assert job_of(gateway, task)["state"] == "settled"  # known before anybody else could look
    assert user.finished(task)["status"] == "complete"
    job = job_of(gateway, task)
    assert (job["failures"], job["crashes"]) == (0, 0)
    assert len(gateway.paid()) == before + 1


@dataclass
class Clients:
    """Apps that each ask for a picture, a model, a picture …, and repeat what was not answered. Few at a time: the
    stand-ins really draw."""

    user: User
    ended: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])  # task → operation, status
    refused: list[str] = field(default_factory=list[str])
    closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    @contextlib.contextmanager
    def at_work(self) -> Generator[None]:
        """Meanwhile they ask; afterwards everything that was accepted has ended."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self.closing.set()
            for thread in self._threads:
                thread.join(CLIENT_PATIENCE)

    def _run(self, number: int) -> None:
        while not self.closing.wait(0.5):
            number += 1
            operation = "text-to-model" if number % 2 else "text-to-image"
            task = str(uuid4())
            body = {"task_id": task, "prompt": f"a fox {task}"}
            if self._answer(lambda body=body, operation=operation: self.user.post(f"/generate/{operation}", body), 202):
                self.ended[task] = (operation, self._end_of(task))

    def _end_of(self, task: str) -> str:
        end = time.monotonic() + CLIENT_PATIENCE
        while time.monotonic() < end:
            answer = self._answer(lambda: self.user.http.get(f"/tasks/{task}/status", params={"wait": 2}), 200)
            status = {} if answer is None else answer.json()
            if status.get("error") is not None:
                return str(status["error"]["code"])
            if status.get("status") == "complete":
                return "complete"
        return "nothing heard"

    def _answer(self, ask: Callable[[], httpx.Response], good: int) -> httpx.Response | None:
        """What the gateway says to it, asked again while it is restarted."""
        end = time.monotonic() + CLIENT_PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(httpx.TransportError):
                answer = ask()
                if answer.status_code == good:
                    return answer
                if answer.status_code != 503:
                    self.refused.append(answer.text)
                    return None
            time.sleep(0.1)  # the pace of a client
        self.refused.append("no answer")
        return None


def rolled(gateway: Gateway) -> None:
    """The stack's own worker is told to go; its supervisor starts another."""
    worker = own_worker(gateway)
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: worker not in gateway.pids("worker") or None)
    own_worker(gateway)


def restart_api(gateway: Gateway) -> None:
    (api,) = gateway.pids("app.cli api")
    os.kill(api, signal.SIGTERM)
    wait_for(lambda: api not in gateway.pids("app.cli api") or None)
    gateway.wait_ready()


@pytest.mark.timeout(600)
def test_a_rolling_restart_under_load(gateway: Gateway, user: User) -> None:
    before = {row["reference"] for row in gateway.paid()}
    clients = Clients(user)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(one_more_worker(gateway))
        stack.enter_context(clients.at_work())
        for number in range(ROUNDS):
            rolled(gateway)
            following = stack.enter_context(one_more_worker(gateway))
            leave(gateway, other)
            other = following
            if number == 0:
                restart_api(gateway)
        clients.closing.set()
        leave(gateway, other)  # the stack of contexts kills what is left of it before the clients are done
    assert clients.refused == []
    assert Counter(status for _, status in clients.ended.values()) == {"complete": len(clients.ended)}
    assert len(clients.ended) > CLIENTS
    paid = [row for row in gateway.paid() if row["reference"] not in before]
    assert Counter(row["provider"] for row in paid) == Counter(
        "tripo" if operation == "text-to-model" else "openai" for operation, _ in clients.ended.values()
    )
    (told,) = rows(
        gateway,
        "select count(*) as jobs, sum(j.crashes) as crashes, sum(j.failures) as failures,"
        " (select count(*) from makeit3d.provider_calls c where c.user_id = $1"
        "   and (c.state <> 'settled' or c.error_code is not null)) as odd_calls,"
        " (select count(*) from makeit3d.files f where f.user_id = $1 and f.state <> 'stored') as odd_files"
        " from makeit3d.jobs j where j.user_id = $1",
        UUID(user.id),
    )
    assert told == {"jobs": len(clients.ended), "crashes": 0, "failures": 0, "odd_calls": 0, "odd_files": 0}
