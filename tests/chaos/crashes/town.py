"""A whole gateway whose processes die by a plan, and what must be true of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from app.config import Settings, child_environment
from app.domain.crash_points import Boundary
from app.domain.operations import Operation
from app.embedded.process import Child
from app.embedded.valkey import EmbeddedValkey
from app.errors import ErrorCode

from tests.chaos.crashes.matrix import IMAGES, MODELS, UNKNOWN, Case
from tests.chaos.crashes.nursery import UNEXPECTED
from tests.chaos.crashes.plan import Plan
from tests.chaos.databases import run_sql
from tests.chaos.stack import BUCKET, ENDED, make_buckets
from tests.e2e.gateway import ADMIN, REPOSITORY, sample, wait_for
from tests.integration.factories import settings_for
from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, free_port, server_home

WORKERS = 5
DEATHS = 3
WORK_SECONDS = 0.2
_LATE = 15.0  # seconds until an answer comes that nobody waits for any more
_PATIENCE = 900.0  # seconds for a task among all the others; a limit for a hung suite, not a measure

PAID_CALLS = dict.fromkeys(Operation, 1) | {Operation.SKETCH_TO_MODEL: 2}


@dataclass
class Town:
    """Each worker process has one slot: who dies takes one job along, and no other case."""

    dsn: str
    settings: Settings
    sandbox: SandboxProcess
    directory: Path
    log: Path
    http: httpx.Client
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    tasks: dict[Case, str] = field(default_factory=dict[Case, str])

    def plan(self, kind: str) -> Plan:
        return Plan(self.directory / kind)

    # --- as a client ----------------------------------------------------------------------------------------

    def body_of(self, operation: Operation, task_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {"task_id": task_id, "prompt": f"a fox for {task_id}"}
        match operation:
            case Operation.IMAGE_TO_IMAGE | Operation.IMAGE_TO_MODEL:
                body["input_image_asset_url"] = self.inputs["picture"]
            case Operation.SKETCH_TO_MODEL:
                body["input_sketch_asset_url"] = self.inputs["picture"]
            case Operation.REFINE_MODEL:
                body["input_model_asset_url"] = self.inputs["model"]
            case Operation.TEXT_TO_IMAGE | Operation.TEXT_TO_MODEL:
                pass
        if operation in IMAGES:
            body["size"] = "1024x640"  # the smallest there is
        return body

    def ask(self, operation: Operation, task_id: str, *, after: Sequence[str] = ()) -> str:
        """Accepted, however often the API dies meanwhile: the client repeats itself, as the documentation says. It
        depends on the tasks ``after`` which it is to start."""
        path, body = f"/generate/{operation.value}", self.body_of(operation, task_id)
        if after:
            path, body = "/tasks", {"task_type": operation.value, "params": body, "depends_on": list(after)}

        def send() -> httpx.Response | None:
            with contextlib.suppress(httpx.TransportError):
                return self.http.post(path, json=body)
            return None

        answer = wait_for(send)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def start(self, case: Case, *, kind: str = "worker") -> None:
        task_id = self.tasks[case] = str(uuid4())
        self.plan(kind).condemn(task_id, case.point, case.times)
        if case.trouble is not None:
            self.fault(case.trouble.where, case.trouble.kind, words=task_id)
        self.ask(case.operation, task_id)

    def start_all(self, cases: Sequence[Case]) -> None:
        """At once; but first those that die when they see progress, with work that lasts until it was seen."""
        watching = [case for case in cases if case.point.boundary is Boundary.PROGRESS]
        self.knobs(work_seconds=8.0)
        for case in watching:
            self.start(case)
        for case in watching:
            wait_for(lambda case=case: self.plan("worker").deaths(self.tasks[case]) or None)
        self.knobs(work_seconds=WORK_SECONDS)
        for case in cases:
            if case not in watching:
                self.start(case)

    def ended(self, task_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            try:
                answer = self.http.get(f"/tasks/{task_id}/status", params={"wait": 5})
            except httpx.TransportError:
                return None
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            return body if body["status"] in ENDED else None

        return wait_for(look, seconds=_PATIENCE)

    def asset(self, operation: Operation) -> str:
        task_id = str(uuid4())
        self.ask(operation, task_id)
        status = self.ended(task_id)
        assert status["status"] == "complete", status
        return str(status["asset_url"])

    # --- as an operator -------------------------------------------------------------------------------------

    def rows(self, query: str, *args: object) -> list[asyncpg.Record]:
        return run_sql(self.dsn, query, *args)

    def ledger(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = loopback.get(f"{self.sandbox.url}/admin/ledger", headers=ADMIN).json()
        return [row for row in rows if row["kind"] != "import"]

    def storage_calls(self, key: str) -> list[dict[str, Any]]:
        """What storage was asked for the key, and what it answered."""
        url = f"{self.sandbox.url}/admin/storage-calls"
        calls: list[dict[str, Any]] = loopback.get(url, params={"path_contains": key}, headers=ADMIN).json()
        return calls

    def knobs(self, **changes: object) -> None:
        loopback.post(f"{self.sandbox.url}/admin/knobs", json=changes, headers=ADMIN).raise_for_status()

    def storage_fault(self, kind: str, **details: object) -> None:
        body = {"kind": kind, **details}
        loopback.post(f"{self.sandbox.url}/admin/storage-faults", json=body, headers=ADMIN).raise_for_status()

    @contextlib.contextmanager
    def standstill(self) -> Generator[list[UUID]]:
        """All workers are stopped meanwhile, well within their time to live; their ids."""
        living = self.rows("select id, pid from makeit3d.workers where seen_at > now() - interval '1 minute'")
        for row in living:
            os.kill(row["pid"], signal.SIGSTOP)
        try:
            yield [row["id"] for row in living]
        finally:
            for row in living:
                os.kill(row["pid"], signal.SIGCONT)

    def fault(self, where: str, kind: str, **details: object) -> None:
        body = {"where": where, "kind": kind, **details}
        loopback.post(f"{self.sandbox.url}/admin/faults", json=body, headers=ADMIN).raise_for_status()

    # --- what must be true ----------------------------------------------------------------------------------

    def holds(self, case: Case, *, kind: str = "worker") -> None:
        """Processes died there, the task is complete, and every call of it was paid once.

        They die less often than planned where what is done once is not done again.
        """
        task_id = self.tasks[case]
        status = self.ended(task_id)
        assert 1 <= self.plan(kind).deaths(task_id) <= case.times, "the point was not reached"
        if case.end is None:
            assert status["status"] == "complete", status
            self.complete_once(task_id, case.operation)
        else:
            self.failed_once(task_id, status, case.end)

    def cut_in_the_middle(self, operations: Sequence[Operation], *, where: str) -> set[str]:
        """Kill whoever has a paid call open that the provider has accepted and not answered; the ends of the tasks.

        No call is paid twice. Call it while nothing else is under way.
        """
        paid = len(self.ledger())
        self.fault(where, "late_after", count=len(operations), seconds=_LATE)
        tasks = {str(uuid4()): operation for operation in operations}
        for task_id, operation in tasks.items():
            self.ask(operation, task_id)
        wait_for(lambda: len(self.ledger()) == paid + len(tasks) or None)
        self.kill_workers_of(*tasks)
        ends = {self.complete_or_cut(task_id, operation) for task_id, operation in tasks.items()}
        more = sum(PAID_CALLS[operation] for operation in operations) if ends == {"complete"} else len(tasks)
        assert len(self.ledger()) == paid + more
        return ends

    def kill_workers_of(self, *task_ids: str) -> None:
        for row in self.rows(
            "select w.pid from makeit3d.jobs j join makeit3d.workers w on w.id = j.worker_id"
            " where j.task_id = any($1) and j.status = 'running'",
            list(task_ids),
        ):
            os.kill(row["pid"], signal.SIGKILL)

    def complete_or_cut(self, task_id: str, operation: Operation) -> str:
        """The one exception: a call of OpenAI's, cut between its first byte and its stored reply, may end unknown."""
        status = self.ended(task_id)
        if status["status"] == "complete" or operation in MODELS:
            assert status["status"] == "complete", status
            self.complete_once(task_id, operation)
        else:
            self.failed_once(task_id, status, UNKNOWN)
        return str(status["status"])

    def failed_once(self, task_id: str, status: dict[str, Any], error: ErrorCode) -> None:
        """The user is told that it failed, why, and what it cost, or may have; nothing was sent again."""
        assert (status["status"], status["error"]["code"]) == ("failed", error.code), status
        calls = self.rows(
            "select c.state, c.error_code from makeit3d.provider_calls c join makeit3d.jobs j on j.id = c.job_id"
            " where j.task_id = $1 and c.state <> 'refused' and c.kind <> 'import-model'",
            task_id,
        )
        assert [(call["state"], call["error_code"]) for call in calls] == [("settled", error.code)]
        assert (status["jobs"][0]["cost_micros"] > 0) == (error is UNKNOWN), status
        self.told_once(task_id, "failed")

    def complete_once(self, task_id: str, operation: Operation) -> None:
        jobs = self.rows("select id, status from makeit3d.jobs where task_id = $1", task_id)
        assert {job["status"] for job in jobs} == {"completed"}
        calls = self.rows(
            "select c.state, c.error_code from makeit3d.provider_calls c join makeit3d.jobs j on j.id = c.job_id"
            " where j.task_id = $1 and c.state <> 'refused' and c.kind <> 'import-model'",
            task_id,
        )
        assert [(call["state"], call["error_code"]) for call in calls] == [("settled", None)] * PAID_CALLS[operation]
        self.told_once(task_id, "completed", "complete")

    def told_once(self, task_id: str, *ends: str) -> None:
        """Each job, asset and task that ended so has one event that says it."""
        told = self.rows(
            "select type, coalesce(payload->>'job_id', payload->>'asset_id', task_id) as id, count(*)"
            " from makeit3d.events"
            " where task_id = $1 and payload->>'status' = any($2) group by 1, 2",
            task_id,
            list(ends),
        )
        assert {row["count"] for row in told} == {1}, told
        ended = self.rows("select 1 from makeit3d.jobs where task_id = $1 and status = any($2)", task_id, list(ends))
        assert sum(row["type"] == "job_update" for row in told) == len(ended)
        assert sum(row["type"] == "task_update" for row in told) == 1

    def nothing_is_left_over(self) -> None:
        """Files, rows, journal and the providers' books agree, and nobody died but by the plan."""
        assert self.rows("select id, type, status from makeit3d.jobs where status in ('queued', 'running')") == []
        assert (
            self.rows("select id, state from makeit3d.provider_calls where state not in ('settled', 'refused')") == []
        )
        stored = {
            row["key"]
            for row in self.rows("select key from makeit3d.files where state = 'stored' and bucket = $1", BUCKET)
        }
        assert {
            row["name"] for row in self.rows("select name from storage.objects where bucket_id = $1", BUCKET)
        } == stored
        assert self.rows("select key from makeit3d.files where state = 'uploading'") == []
        [paid] = self.rows(
            "select count(*) as most, count(*) filter (where error_code is distinct from $1) as least"
            " from makeit3d.provider_calls where state = 'settled' and kind <> 'import-model'",
            UNKNOWN.code,
        )
        assert paid["least"] <= len(self.ledger()) <= paid["most"]
        report = self.directory / UNEXPECTED
        assert not report.exists(), report.read_text() + self.last_words()

    def last_words(self) -> str:
        """What processes logged that ended by themselves."""
        log = self.log.read_text()
        first = min((at for word in ("Traceback", "Unrecoverable") if (at := log.find(word)) >= 0), default=-1)
        return log[max(0, first - 500) : first + 4000] if first >= 0 else log[-2000:]

    def audit(self) -> None:
        """The product's own."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "audit", "--grace", "2"],
            env=child_environment(self.settings, self.sandbox.settings),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def running_town(
    postgres: PostgresServer,
    valkey: EmbeddedValkey,
    *,
    storage_bytes: int = 50 * 1024 * 1024,
    **changes: Any,  # noqa: ANN401
) -> Generator[Town]:
    """``storage_bytes`` is the project's limit of storage; ``changes`` are settings by field name."""
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(server_home("town"))
        dsn = stack.enter_context(postgres.fresh_database())
        sandbox = stack.enter_context(
            running_sandbox(dsn, home, drawing="stock", storage_file_size_limit=storage_bytes)
        )
        port = free_port()
        values: dict[str, Any] = {
            "api_port": port,
            "public_base_url": f"http://127.0.0.1:{port}",
            "supabase_url": sandbox.supabase_url,
            "supabase_timeout_seconds": 10.0,
            "supabase_service_key": sandbox.settings.supabase_service_key,
            "redis_url": valkey.url(),
            "openai_api_key": sandbox.settings.openai_api_key,
            "openai_base_url": f"{sandbox.url}/openai/v1",
            "openai_requests_per_minute": 10_000,
            "tripo_api_key": sandbox.settings.tripo_api_key,
            "tripo_base_url": f"{sandbox.url}/tripo/v3",
            "tripo_requests_per_minute": 10_000,
            "tripo_download_hosts": ("127.0.0.1",),
            "tripo_poll_seconds": 0.3,
            "worker_slots": 1,
            # a process may run a job while it writes the end of another, and hundreds of deaths are planned
            "max_crashes": 8,
            "worker_ttl_seconds": 6.0,
            "sweep_seconds": 0.8,
            "breaker_failures": 1000,
            "retry_base_seconds": 0.2,
            "reconcile_first_seconds": 0.5,
            "reconcile_window_seconds": 10.0,
            "database_pool_size": 4,
            "log_level": "WARNING",
        }
        settings = settings_for(dsn, home, **(values | changes))
        user_id = str(uuid4())
        run_sql(dsn, "insert into auth.users (id) values ($1)", user_id)
        key = settings.supabase_service_key.get_secret_value()
        make_buckets(sandbox.supabase_url, key)
        directory = home / "plan"
        for kind in ("worker", "api"):
            (directory / kind).mkdir(parents=True)
        nursery = Child(
            name="nursery",
            command=[
                sys.executable,
                "-m",
                "tests.chaos.crashes.nursery",
                str(directory),
                *["worker"] * WORKERS,
                "api",
            ],
            log=home / "nursery.log",
            environment=child_environment(settings),
            cwd=str(REPOSITORY),
        )
        nursery.launch()
        stack.callback(nursery.stop)
        headers = {"Authorization": f"Bearer {key}", "X-User-Id": user_id}
        http = stack.enter_context(httpx.Client(base_url=settings.public_base_url, headers=headers, timeout=30))
        town = Town(dsn, settings, sandbox, directory, nursery.log, http)
        town.knobs(work_seconds=WORK_SECONDS)
        wait_for(lambda: _is_ready(town, nursery) or None)
        with sample("coffee.png").open("rb") as picture:
            answer = http.post("/uploads", files={"file": ("coffee.png", picture, "image/png")})
        assert answer.is_success, answer.text
        town.inputs["picture"] = answer.json()["asset_url"]
        town.inputs["model"] = town.asset(Operation.TEXT_TO_MODEL)
        yield town


def _is_ready(town: Town, nursery: Child) -> bool:
    assert nursery.exit_code() is None, nursery.log.read_text()[-3000:]
    with contextlib.suppress(httpx.TransportError):
        return town.http.get("/health/ready").is_success and bool(town.rows("select 1 from makeit3d.workers"))
    return False
