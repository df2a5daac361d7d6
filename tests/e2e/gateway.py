"""The whole product as a client sees it: ``makeit3d up`` in a process of its own, driven over HTTP."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from app.embedded.process import command_line, spawn

from tests.loopback import loopback
from tests.servers import free_port, server_home

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 90.0  # seconds for anything to happen; a limit for a hung test, not a measure
ADMIN = {"X-Admin-Key": "sandbox-admin"}

# quick stand-ins and quick housekeeping; nothing else differs from `make run`
QUICK = {
    "SANDBOX_WORK_SECONDS": "0.3",
    "BFF_TRIPO_POLL_SECONDS": "0.2",
    "BFF_WORKER_TTL_SECONDS": "2",
    "BFF_SWEEP_SECONDS": "0.5",
    "BFF_BREAKER_COOL_DOWN_SECONDS": "0.5",
    "BFF_OPENAI_REQUESTS_PER_MINUTE": "1000",
    "BFF_TRIPO_REQUESTS_PER_MINUTE": "1000",
}

# where nobody looks at what is made
STOCK = {"SANDBOX_KNOBS": '{"drawing": "stock"}'}


def sample(name: str) -> Path:
    """A public-domain picture that scikit-image ships: coffee.png (CC0), astronaut.png (NASA), horse.png (CC0)."""
    return Path(str(resources.files("skimage.data") / name))


def wait_for(what: Callable[[], T | None], *, seconds: float = PATIENCE) -> T:
    """Poll until there is something. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found is not None:
            return found
        time.sleep(0.05)
    raise TimeoutError


@dataclass
class User:
    """A signed-up user of the sandbox project, and their HTTP client for the gateway."""

    id: str
    token: str
    http: httpx.Client
    supabase_url: str

    def post(self, path: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
        return self.http.post(path, json=dict(body), headers=headers)

    def put_object(self, bucket: str, key: str, content: bytes, content_type: str) -> str:
        """Upload to the project's storage as the user; the object's authenticated URL."""
        answer = loopback.post(
            f"{self.supabase_url}/storage/v1/object/{bucket}/{key}",
            content=content,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        assert answer.is_success, answer.text
        return f"{self.supabase_url}/storage/v1/object/authenticated/{bucket}/{key}"

    def put_input(self, path: Path, content_type: str = "image/png") -> str:
        name = f"{self.id}/{uuid4()}{path.suffix}"
        return self.put_object("user_input_files_bucket", name, path.read_bytes(), content_type)

    def ask(self, operation: str, prompt: str = "a small wooden boat") -> str:
        """A request that is accepted; its task's id."""
        task_id = str(uuid4())
        answer = self.post(f"/generate/{operation}", {"task_id": task_id, "prompt": prompt})
        assert answer.status_code == 202, answer.text
        return task_id

    def status(self, id_: str) -> dict[str, Any]:
        """Of a task or job, as it is now."""
        answer = self.http.get(f"/tasks/{id_}/status")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def finished(self, id_: str) -> dict[str, Any]:
        """Long-poll a task or job until it is over."""

        def look() -> dict[str, Any] | None:
            answer = self.http.get(f"/tasks/{id_}/status", params={"wait": 5}, timeout=30)
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            return body if body["status"] in ("complete", "failed", "canceled") else None

        return wait_for(look)


@dataclass
class Gateway:
    """A running stack."""

    home: Path
    process: subprocess.Popen[bytes]
    api_url: str
    sandbox_url: str
    environment: dict[str, str] = field(default_factory=dict[str, str])
    users: list[User] = field(default_factory=list[User])

    @classmethod
    @contextlib.contextmanager
    def running(cls, home: Path, **changes: str) -> Generator[Gateway]:
        api_port, sandbox_port = free_port(), free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("BFF_", "SANDBOX_"))},
            **QUICK,
            "MAKEIT3D_HOME": str(home),
            "BFF_API_PORT": str(api_port),
            "SANDBOX_PORT": str(sandbox_port),
            **changes,
        }
        api, sandbox = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{sandbox_port}"
        gateway = cls(home, _start(environment), api, sandbox, environment)
        try:
            gateway.wait_ready()
            yield gateway
        finally:
            gateway.stop()
            for user in gateway.users:
                user.http.close()

    def wait_ready(self) -> None:
        def ready() -> bool | None:
            assert self.process.poll() is None, (self.home / "up.log").read_text(encoding="utf-8")
            with contextlib.suppress(httpx.TransportError):
                return loopback.get(f"{self.api_url}/health/ready", timeout=5).is_success or None
            return None

        wait_for(ready)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # tests in the background of a shell, and all below, ignore SIGINT
            self.process.wait(60)

    def kill(self) -> None:
        """End the launcher as a crash would; what it launched is told to stop, and may take its time."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kill_all(self) -> None:
        """End everything at once: workers that are told to stop would wait for open calls, for minutes."""
        workers = self.pids("app.cli worker")
        self.kill()
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def restart(self) -> None:
        self.start_again()
        self.wait_ready()

    def start_again(self) -> None:
        """Call from the main thread."""
        self.process = _start(self.environment)

    def new_user(self) -> User:
        credentials = {"email": f"{uuid4()}@example.org", "password": "correct horse"}
        url = f"{self.sandbox_url}/supabase"
        answer = loopback.post(f"{url}/auth/v1/signup", json=credentials, headers={"apikey": "sb_publishable_sandbox"})
        assert answer.is_success, answer.text
        session = answer.json()
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        http = httpx.Client(base_url=self.api_url, headers=headers, timeout=30)
        self.users.append(User(session["user"]["id"], session["access_token"], http, url))
        return self.users[-1]

    # --- the sandbox's back door ----------------------------------------------------------------------------

    def ledger(self) -> list[dict[str, Any]]:
        answer = loopback.get(f"{self.sandbox_url}/admin/ledger", headers=ADMIN)
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def paid(self) -> list[dict[str, Any]]:
        """Accepted calls that cost something."""
        return [row for row in self.ledger() if row["kind"] != "import"]

    def concurrency(self) -> dict[str, int]:
        """The most calls that the providers had under way at a time, by their pools, since this was last asked."""
        most: dict[str, int] = loopback.get(f"{self.sandbox_url}/admin/concurrency", headers=ADMIN).json()
        loopback.delete(f"{self.sandbox_url}/admin/concurrency", headers=ADMIN).raise_for_status()
        return most

    def knobs(self, **changes: object) -> None:
        loopback.post(f"{self.sandbox_url}/admin/knobs", json=changes, headers=ADMIN).raise_for_status()

    def balance(self, amount: int) -> None:
        """What the model provider's account has from now on, in credits."""
        loopback.post(f"{self.sandbox_url}/admin/balance", json={"balance": amount}, headers=ADMIN).raise_for_status()

    def fault(self, where: str, kind: str, **details: object) -> None:
        body = {"where": where, "kind": kind, **details}
        loopback.post(f"{self.sandbox_url}/admin/faults", json=body, headers=ADMIN).raise_for_status()

    def clear_faults(self) -> None:
        loopback.delete(f"{self.sandbox_url}/admin/faults", headers=ADMIN).raise_for_status()

    # --- processes ------------------------------------------------------------------------------------------

    def children(self) -> dict[int, str]:
        """Process ids and command lines of the stack's own children."""
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return {int(pid): command_line(int(pid)) for pid in listing.stdout.split()}

    def pids(self, word: str) -> list[int]:
        return [pid for pid, line in self.children().items() if word in line]

    @contextlib.contextmanager
    def more_workers(self, number: int, lane: str = "normal") -> Generator[list[subprocess.Popen[bytes]]]:
        """Further worker processes, as other machines would run them; nobody starts them again."""
        command = [sys.executable, "-m", "app.cli", "worker", "--lane", lane]
        log = self.home / "more-workers.log"
        workers = [
            spawn(command, log=log, environment=self.environment, cwd=str(REPOSITORY), death_signal=signal.SIGKILL)
            for _ in range(number)
        ]
        try:
            yield workers
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()

    def dsn(self) -> str:
        return self._setting("DATABASE_URL")

    def broker_url(self) -> str:
        return self._setting("REDIS_URL")

    def _setting(self, name: str) -> str:
        for line in (self.home / "settings.env").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key == name:
                return value.strip("'")
        raise KeyError(name)


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "app.cli", "up"],
        log=Path(environment["MAKEIT3D_HOME"]) / "up.log",
        environment=environment,
        cwd=str(REPOSITORY),
    )


@contextlib.contextmanager
def gateway_in_new_home(**changes: str) -> Generator[Gateway]:
    with server_home("e2e") as home, Gateway.running(home, **changes) as gateway:
        yield gateway
