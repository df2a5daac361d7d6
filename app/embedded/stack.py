"""Everything on one machine: embedded servers, sandbox, API, both worker lanes and beat, as real processes.

It runs the production code against other addresses; only the far ends are stand-ins.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Generator
from functools import cached_property
from pathlib import Path

import httpx
from rich.console import Console

from app.ai_clients.registry import ProviderRegistry, build_registry
from app.config import Settings, child_environment, variables
from app.db.migrate import migrate
from app.embedded.bootstrap import bootstrap
from app.embedded.paths import server_home
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import Child, ServerFailed
from app.embedded.settings import EmbeddedSettings
from app.embedded.supervisor import Supervisor, check_port, local_address, write
from app.embedded.valkey import EmbeddedValkey
from app.sandbox_settings import SandboxSettings

_CODE = Path(__file__).resolve().parents[2]  # children import this very code, whatever lies where the user stands
_DRAIN_SECONDS = 30.0
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # loading them takes long, and health is plain HTTP


class EmbeddedStack:
    """The processes of one home directory. Use ``up`` as a context, or ``run_forever``; from the main thread."""

    def __init__(
        self,
        wanted: EmbeddedSettings,
        console: Console | None = None,
        *,
        providers: ProviderRegistry | None = None,
        module: str = "app.cli",
    ) -> None:
        """``providers`` are those of the gateway, and ``module`` is what its processes run."""
        self._wanted = wanted
        self._providers = providers or build_registry()
        self._module = module
        self._home = wanted.home.resolve()
        self._postgres = EmbeddedPostgres(self._home)
        self._valkey = EmbeddedValkey(self._home)
        self._supervisor = Supervisor(self._home, console or Console(stderr=True))

    @classmethod
    def from_environment(cls, providers: ProviderRegistry | None = None, *, module: str = "app.cli") -> EmbeddedStack:
        """Raises ConfigurationError."""
        return cls(EmbeddedSettings.load(), providers=providers, module=module)

    @cached_property
    def settings(self) -> Settings:
        """Settings of the gateway's processes. Raises ConfigurationError."""
        return self._wanted.gateway(
            self._providers, self._sandbox, database_url=self._postgres.dsn(), redis_url=self._valkey.url()
        )

    @cached_property
    def _sandbox(self) -> SandboxSettings:
        return SandboxSettings.beside(
            home=self._home, port=self._wanted.sandbox_port, database_url=self._postgres.dsn()
        )

    @contextlib.contextmanager
    def up(self) -> Generator[EmbeddedStack]:
        """Start everything and wait until the API is ready; stop everything afterwards, in reverse order.

        INT and TERM raise KeyboardInterrupt in the body. Raises ConfigurationError for a home or port that is in use,
        ServerFailed with the end of the log of what did not start.
        """
        with self._supervisor.running():
            settings, sandbox = self.settings, self._sandbox
            check_port("BFF_API_PORT", settings.api_host, settings.api_port)
            check_port("SANDBOX_PORT", sandbox.host, sandbox.port)
            self._supervisor.start(self._postgres, self._valkey)
            asyncio.run(_prepare(self._postgres.dsn()))
            self._supervisor.start(self._sandbox_process())
            _make_buckets(settings)
            write_settings(self._home / "settings.env", settings)
            self._supervisor.start(
                self._process("worker-normal", "worker", "--lane", "normal"),
                self._process("worker-priority", "worker", "--lane", "priority"),
                self._process("beat", "beat"),
                self._process("api", "api", health=_url(settings.api_host, settings.api_port, "/health/ready")),
            )
            yield self

    def wait(self) -> None:
        """Until INT or TERM: what ends unexpectedly is started again."""
        self._supervisor.watch()

    def run_forever(self) -> None:
        """Start, say where things are, and serve until a signal."""
        with contextlib.suppress(KeyboardInterrupt), self.up():
            self._supervisor.say(f"API (sandbox): {self.settings.public_base_url}/docs")
            places = {str(self._home), str(server_home(self._home))}
            self._supervisor.say(f"Ctrl-C stops everything; the data stays in {' and '.join(sorted(places))}")
            self.wait()

    def _process(self, name: str, *command: str, health: str | None = None) -> Child:
        return Child(
            name=name,
            command=[sys.executable, "-m", self._module, *command],
            log=self._home / "logs" / f"{name}.log",
            environment=child_environment(self.settings),
            cwd=str(_CODE),
            ready=None if health is None else lambda: _is_well(health),
            stop_seconds=min(self.settings.shutdown_grace_seconds, _DRAIN_SECONDS),
        )

    def _sandbox_process(self) -> Child:
        sandbox = self._sandbox
        health = _url(sandbox.host, sandbox.port, "/health")
        return Child(
            name="sandbox",
            command=[sys.executable, "-m", "app.sandbox"],
            log=self._home / "logs" / "sandbox.log",
            environment=child_environment(sandbox),
            cwd=str(_CODE),
            ready=lambda: _is_well(health),
        )


async def _prepare(dsn: str) -> None:
    await bootstrap(dsn)
    await migrate(dsn)


def _make_buckets(settings: Settings) -> None:
    """The buckets that a project's owner makes by hand on the real thing."""
    key = settings.supabase_service_key.get_secret_value()
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    wanted = {settings.generated_assets_bucket_name: True, **dict.fromkeys(settings.input_bucket_names, False)}
    with httpx.Client(base_url=f"{settings.supabase_url}/storage/v1", headers=headers, timeout=10) as http:
        for name, public in wanted.items():
            answer = http.post("/bucket", json={"id": name, "name": name, "public": public})
            if answer.is_error and answer.json().get("code") != "BucketAlreadyExists":
                raise ServerFailed(f"bucket {name} could not be made: {answer.text}")


def write_settings(path: Path, settings: Settings) -> None:
    """For commands in other terminals, which find the running stack by this file. Only sandbox keys are in it."""
    lines = [f"{name}={_quoted(value)}\n" for name, value in sorted(variables(settings).items())]
    write(path, "".join(lines))


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _url(host: str, port: int, path: str) -> str:
    address = local_address(host)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"


def _is_well(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False, verify=_NO_CERTIFICATES).is_success
    except httpx.TransportError:
        return False
