"""The gateway's real processes with a proxy before each thing they depend on, so that each can be broken alone."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from app.cli_program import Program
from app.config import Settings, child_environment
from app.embedded.process import Child
from app.embedded.valkey import EmbeddedValkey
from pydantic import SecretStr

from tests.chaos.databases import run_script, run_sql, socket_of, tcp_dsn
from tests.chaos.proxy import Proxy
from tests.e2e.gateway import ADMIN, REPOSITORY, wait_for
from tests.integration.factories import settings_with
from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, free_port, server_home

BUCKET = "makeit3d_app_assets"
INPUTS = "user_input_files_bucket"
ENDED = ("complete", "failed", "canceled")


@dataclass
class Stack:
    """API, one worker and beat. ``dsn`` and the sandbox are reached past the proxies."""

    dsn: str
    settings: Settings
    database: Proxy
    listener: Proxy
    broker: Proxy
    storage: Proxy
    sandbox: SandboxProcess
    http: httpx.Client
    user_id: str
    children: dict[str, Child] = field(default_factory=dict[str, Child])

    # --- as a client ----------------------------------------------------------------------------------------

    def get(self, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx takes them
        return self.http.get(path, **options)

    def ask(self, operation: str, **fields: object) -> httpx.Response:
        """One request for a new task."""
        return self.http.post(f"/generate/{operation}", json={"task_id": str(uuid4()), "prompt": "a fox"} | fields)

    def accepted(self, operation: str, **fields: object) -> str:
        """The task id of an accepted request."""
        answer = self.ask(operation, **fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    def finished(self, task_id: str) -> dict[str, Any]:
        """The final status, however often the API says meanwhile that it can not tell."""

        def look() -> dict[str, Any] | None:
            answer = self.get(f"/tasks/{task_id}/status", params={"wait": 2})
            if answer.status_code == 503:
                assert_unavailable(answer)
                return None
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            return body if body["status"] in ENDED else None

        return wait_for(look)

    def complete(self, *task_ids: str) -> None:
        """Every one of them ends well."""
        for task_id in task_ids:
            status = self.finished(task_id)
            assert status["status"] == "complete", status

    def parts(self) -> dict[str, str]:
        """What ``/health/ready`` says of each part, whatever its status."""
        return dict(self.get("/health/ready").json()["parts"])

    @contextlib.contextmanager
    def events(self) -> Generator[list[dict[str, Any]]]:
        """What arrives on the user's event stream meanwhile, each with its ``id``; it reconnects as a browser does."""
        seen: list[dict[str, Any]] = []
        begun, over = threading.Event(), threading.Event()

        def follow() -> None:
            cursor: str | None = None
            while not over.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    cursor = self._follow(cursor, seen, begun, over)
                over.wait(0.1)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        assert begun.wait(30)
        try:
            yield seen
        finally:
            over.set()
            thread.join(30)

    def _follow(
        self, cursor: str | None, seen: list[dict[str, Any]], begun: threading.Event, over: threading.Event
    ) -> str | None:
        headers = dict(self.http.headers) | ({} if cursor is None else {"Last-Event-ID": cursor})
        with (
            httpx.Client(base_url=str(self.http.base_url), headers=headers, timeout=1) as http,
            http.stream("GET", "/events") as answer,
        ):
            if answer.status_code != 200:
                return cursor
            try:
                for message in _messages(answer.iter_lines()):
                    cursor = message.get("id", cursor)
                    begun.set()
                    if "data" in message:
                        seen.append(json.loads(message["data"]) | {"id": message["id"], "type": message["event"]})
                    if over.is_set():
                        break
            except httpx.HTTPError:
                return cursor
        return cursor

    # --- as an operator -------------------------------------------------------------------------------------

    def rows(self, query: str, *args: object) -> list[asyncpg.Record]:
        return run_sql(self.dsn, query, *args)

    def value(self, query: str, *args: object) -> Any:  # noqa: ANN401 - the column's type
        return self.rows(query, *args)[0][0]

    def paid(self) -> int:
        """Accepted calls that cost something, as the providers count them."""
        answer = loopback.get(f"{self.sandbox.url}/admin/ledger", headers=ADMIN)
        return sum(row["kind"] != "import" for row in answer.json())

    def knobs(self, **changes: object) -> None:
        loopback.post(f"{self.sandbox.url}/admin/knobs", json=changes, headers=ADMIN).raise_for_status()

    def storage_fault(self, kind: str, **details: object) -> None:
        body = {"kind": kind, **details}
        loopback.post(f"{self.sandbox.url}/admin/storage-faults", json=body, headers=ADMIN).raise_for_status()

    def storage_hits(self) -> int:
        """How many calls the armed faults spoiled."""
        return int(loopback.get(f"{self.sandbox.url}/admin/storage-faults", headers=ADMIN).json()["hits"])

    def clear_storage_faults(self) -> None:
        loopback.delete(f"{self.sandbox.url}/admin/storage-faults", headers=ADMIN).raise_for_status()

    def heal(self) -> None:
        """Everything passes again."""
        for proxy in (self.database, self.listener, self.broker, self.storage):
            proxy.heal()
        self.clear_storage_faults()

    def objects(self, bucket: str = BUCKET) -> set[str]:
        """The keys in the bucket of results, or in another."""
        return {row["name"] for row in self.rows("select name from storage.objects where bucket_id = $1", bucket)}

    def nothing_is_left_over(self) -> None:
        """Files and rows are the same, nobody crashed or failed, every call is closed and each was paid once."""
        stored = {
            row["key"] for row in self.rows("select key from makeit3d.files where state = 'stored' and kind <> 'input'")
        }
        assert self.objects() == stored
        assert self.rows("select id, state from makeit3d.files where state = 'uploading' and job_id is not null") == []
        assert self.rows("select id, status, failures, crashes from makeit3d.jobs where failures + crashes > 0") == []
        closed = self.rows(
            "select state, count(*) as calls from makeit3d.provider_calls where state <> 'refused' group by 1"
        )
        assert [row["state"] for row in closed] == ["settled"]
        assert closed[0]["calls"] == self.paid()


def assert_unavailable(answer: httpx.Response, code: str = "service_unavailable") -> None:
    """A clear refusal that says when to come again."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert int(answer.headers["Retry-After"]) >= 1


def _messages(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    message: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            message[name] = value
        elif not line:
            if message:
                yield message
            message = {}


@contextlib.contextmanager
def running_stack(
    postgres: PostgresServer,
    valkey: EmbeddedValkey,
    *,
    program: Program | None = None,
    tables: str = "",
    **changes: Any,  # noqa: ANN401
) -> Generator[Stack]:
    """Of the product, or of a gateway with plugins, whose own ``tables`` are made first. ``changes`` are settings by
    field name."""
    program = program or Program()
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(server_home("chaos"))
        dsn = stack.enter_context(postgres.fresh_database())
        if tables:
            run_script(dsn, tables)
        sandbox = stack.enter_context(running_sandbox(dsn, home, drawing="stock"))
        database, listener = (stack.enter_context(Proxy.to(socket_of(dsn))) for _ in range(2))
        broker = stack.enter_context(Proxy.to(valkey_socket(valkey)))
        storage = stack.enter_context(Proxy.to(("127.0.0.1", sandbox.settings.port)))
        port = free_port()
        values: dict[str, Any] = {
            "api_port": port,
            "public_base_url": f"http://127.0.0.1:{port}",
            "supabase_url": f"http://127.0.0.1:{storage.port}/supabase",
            "supabase_service_key": sandbox.settings.supabase_service_key,
            "supabase_timeout_seconds": 2.0,
            "database_listen_url": SecretStr(tcp_dsn(dsn, listener.port)),
            "database_timeout_seconds": 1.0,
            "redis_url": SecretStr(f"redis://127.0.0.1:{broker.port}/0"),
            "openai_api_key": sandbox.settings.openai_api_key,
            "openai_base_url": f"{sandbox.url}/openai/v1",
            "tripo_api_key": sandbox.settings.tripo_api_key,
            "tripo_base_url": f"{sandbox.url}/tripo/v3",
            "tripo_download_hosts": ("127.0.0.1",),
            "tripo_poll_seconds": 0.2,
            "worker_ttl_seconds": 2.0,
            "sweep_seconds": 0.5,
            "retry_base_seconds": 0.2,
            "retry_cap_seconds": 0.5,
            "shutdown_grace_seconds": 5.0,
        }
        address = tcp_dsn(dsn, database.port)
        settings = settings_with(program.providers, address, home, **(values | changes))
        user_id = str(uuid4())
        run_sql(dsn, "insert into auth.users (id) values ($1)", user_id)
        key = settings.supabase_service_key.get_secret_value()
        headers = {"Authorization": f"Bearer {key}", "X-User-Id": user_id}
        make_buckets(sandbox.supabase_url, key)
        http = stack.enter_context(httpx.Client(base_url=settings.public_base_url, headers=headers, timeout=30))
        found = Stack(dsn, settings, database, listener, broker, storage, sandbox, http, user_id)
        for name, command in (("worker", ["worker", "--lane", "normal"]), ("beat", ["beat"]), ("api", ["api"])):
            found.children[name] = Child(
                name=name,
                command=[sys.executable, "-m", program.module, *command],
                log=home / f"{name}.log",
                environment=child_environment(settings),
                cwd=str(REPOSITORY),
            )
            found.children[name].launch()
            stack.callback(found.children[name].kill)
        wait_for(lambda: _is_ready(found) or None)
        yield found


def _is_ready(stack: Stack) -> bool:
    assert all(child.exit_code() is None for child in stack.children.values())
    with contextlib.suppress(httpx.TransportError):
        return stack.get("/health/ready").is_success and stack.value("select count(*) from makeit3d.workers") == 1
    return False


def make_buckets(supabase_url: str, key: str) -> None:
    for name, public in ((BUCKET, True), (INPUTS, False)):
        body = {"id": name, "name": name, "public": public}
        answer = loopback.post(
            f"{supabase_url}/storage/v1/bucket", json=body, headers={"Authorization": f"Bearer {key}"}
        )
        answer.raise_for_status()


def valkey_socket(valkey: EmbeddedValkey) -> Path:
    """Where an embedded server listens."""
    return Path(valkey.url().removeprefix("redis+socket://").partition("?")[0])
