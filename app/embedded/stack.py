"""Everything on one machine: embedded servers, sandbox, API, both worker lanes and beat, as real processes.

It runs the production code against other addresses; only the far ends are stand-ins.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console

from app.config import EmbeddedSettings, SandboxSettings, Settings, child_environment, variables
from app.db.migrate import migrate
from app.embedded.bootstrap import bootstrap
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Child, ServerFailed
from app.embedded.valkey import EmbeddedValkey
from app.errors import ConfigurationError

_READY_SECONDS = 60.0
_RESTART_BACKOFF = (0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_SECONDS = 60.0  # after which a restarted process starts with the shortest pause again


class EmbeddedStack:
    """The processes of one home directory. Use ``up`` as a context, or ``run_forever``."""

    def __init__(self, wanted: EmbeddedSettings, console: Console | None = None) -> None:
        self._home = wanted.home.absolute()
        self._wanted = wanted
        self._console = console or Console(stderr=True)
        self._postgres = EmbeddedPostgres(self._home)
        self._valkey = EmbeddedValkey(self._home)
        self._children: list[Child] = []
        self._settings: Settings | None = None
        self._restarts: dict[str, list[float]] = {}
        self._stop_asked = False

    @classmethod
    def from_environment(cls) -> EmbeddedStack:
        return cls(EmbeddedSettings())  # pyright: ignore[reportCallIssue]

    @property
    def settings(self) -> Settings:
        """Settings of the gateway's processes. Raises ServerFailed before the servers run."""
        if self._settings is None:
            raise ServerFailed("the embedded stack was not started")
        return self._settings

    @contextlib.contextmanager
    def up(self) -> Generator[EmbeddedStack]:
        """Start everything and wait until the API is ready; stop everything afterwards, in reverse order."""
        self._home.mkdir(parents=True, exist_ok=True)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._locked():
                try:
                    self._start()
                    yield self
                except KeyboardInterrupt:
                    self._console.print("stopping…")
                finally:
                    self._stop()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def run_forever(self) -> None:
        """Start, say where things are, and serve until a signal."""
        with self.up():
            self._console.print(f"API (sandbox) {self.settings.public_base_url}/docs", highlight=False)
            self._console.print("Ctrl-C stops everything; the data stays in " + str(self._home), highlight=False)
            self.wait()

    def wait(self) -> None:
        """Watch over the processes until a signal: what ends unexpectedly is started again, with growing pauses."""
        while not self._stop_asked:
            time.sleep(0.5)
            for server in (self._postgres, self._valkey):
                if server.exit_code() is not None:
                    self._console.print(f"{type(server).__name__} ended; starting it again")
                    server.start()
            for child in self._children:
                if child.exit_code() is not None:
                    self._restart(child)

    # --- starting -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for variable, port in (("BFF_API_PORT", self._wanted.api_port), ("SANDBOX_PORT", self._wanted.sandbox_port)):
            _check_port(variable, port)
        self._say("Postgres")
        self._postgres.start()
        self._say("Valkey")
        self._valkey.start()
        dsn = self._postgres.dsn()
        asyncio.run(_prepare(dsn))
        sandbox = SandboxSettings.beside(home=self._home, port=self._wanted.sandbox_port, database_url=dsn)
        self._settings = settings = _gateway_settings(self._home, self._wanted, sandbox, self._valkey.url(), dsn)
        _write_private(self._home / "settings.env", variables(settings))
        python = sys.executable
        self._launch("sandbox", [python, "-m", "app.sandbox"], settings, sandbox)
        self._wait_for("sandbox", f"{sandbox.public_url}/health")
        _make_buckets(settings)
        self._launch("api", [python, "-m", "app.cli", "api"], settings)
        self._launch("worker-normal", [python, "-m", "app.cli", "worker", "--lane", "normal"], settings)
        self._launch("worker-priority", [python, "-m", "app.cli", "worker", "--lane", "priority"], settings)
        self._launch("beat", [python, "-m", "app.cli", "beat"], settings)
        self._wait_for("api", f"http://127.0.0.1:{settings.api_port}/health/ready")

    def _launch(self, name: str, command: list[str], *settings: Settings | SandboxSettings) -> None:
        self._say(name)
        child = Child(
            name=name,
            command=command,
            log=self._home / f"{name}.log",
            environment=child_environment(*settings),
            cwd=str(Path.cwd()),
        )
        child.start()
        self._children.append(child)

    def _wait_for(self, name: str, url: str) -> None:
        child = next(child for child in self._children if child.name == name)

        def ready() -> bool:
            try:
                return httpx.get(url, timeout=2).is_success
            except httpx.TransportError:
                return False

        child.wait_ready(ready, seconds=_READY_SECONDS)

    def _restart(self, child: Child) -> None:
        now = time.monotonic()
        recent = [moment for moment in self._restarts.get(child.name, []) if now - moment < _STEADY_SECONDS]
        pause = _RESTART_BACKOFF[min(len(recent), len(_RESTART_BACKOFF) - 1)]
        self._console.print(
            f"{child.name} ended with status {child.exit_code()} (see {child.log}); again in {pause:g} s",
            highlight=False,
        )
        time.sleep(pause)
        self._restarts[child.name] = [*recent, now]
        child.start()

    def _say(self, name: str) -> None:
        self._console.print(f"[dim]starting {name}[/]")

    # --- stopping -------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._stop_asked:
            for child in self._children:
                child.kill()
            return
        self._stop_asked = True
        raise KeyboardInterrupt

    def _stop(self) -> None:
        self._stop_asked = True
        # the workers all at once: each may have paid calls to drain
        for child in self._children[1:]:
            child.ask_to_stop()
        for child in reversed(self._children):
            child.stop()
        self._valkey.stop()
        self._postgres.stop()

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """One stack per home. The lock goes with the process, however that ends."""
        with (self._home / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise ConfigurationError(
                    f"{self._home} is in use by process {lock.read().strip() or 'unknown'}. "
                    "Stop that one, or set MAKEIT3D_HOME, BFF_API_PORT and SANDBOX_PORT to others."
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield


async def _prepare(dsn: str) -> None:
    await bootstrap(dsn)
    await migrate(dsn)


def _gateway_settings(
    home: Path, wanted: EmbeddedSettings, sandbox: SandboxSettings, broker: str, dsn: str
) -> Settings:
    """What the gateway's processes get; limits and the like come from the environment as everywhere."""
    derived = {
        "MAKEIT3D_ENVIRONMENT": "sandbox",
        "MAKEIT3D_HOME": str(home),
        "PUBLIC_BASE_URL": f"http://127.0.0.1:{wanted.api_port}",
        "BFF_API_PORT": str(wanted.api_port),
        "SUPABASE_URL": f"{sandbox.public_url}/supabase",
        "SUPABASE_SERVICE_KEY": sandbox.supabase_service_key,
        "DATABASE_URL": dsn,
        "REDIS_URL": broker,
        "OPENAI_API_KEY": sandbox.openai_api_key,
        "OPENAI_BASE_URL": f"{sandbox.public_url}/openai/v1",
        "TRIPO_API_KEY": sandbox.tripo_api_key,
        "TRIPO_BASE_URL": f"{sandbox.public_url}/tripo/v3",
        "BFF_TRIPO_DOWNLOAD_HOSTS": "127.0.0.1",
        "BFF_TRIPO_POLL_SECONDS": os.environ.get("BFF_TRIPO_POLL_SECONDS", "1"),
    }
    return Settings(_env_file=None, **derived)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _make_buckets(settings: Settings) -> None:
    """The buckets that a project owner makes by hand on the real thing."""
    key = settings.supabase_service_key.get_secret_value()
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    wanted = {settings.generated_assets_bucket_name: True, **dict.fromkeys(settings.input_bucket_names, False)}
    with httpx.Client(base_url=f"{settings.supabase_url}/storage/v1", headers=headers, timeout=10) as http:
        for name, public in wanted.items():
            answer = http.post("/bucket", json={"id": name, "name": name, "public": public})
            if answer.is_error and answer.json().get("code") != "BucketAlreadyExists":
                raise ServerFailed(f"bucket {name} could not be made: {answer.text}")


def _check_port(variable: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigurationError(f"Port {port} is in use. Free it, or set {variable} to another.") from None


def _write_private(path: Path, values: dict[str, str]) -> None:
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}='{value}'\n" for name, value in sorted(values.items())), encoding="utf-8")
