"""The sandbox as a real process, for tests that talk to it from outside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
from app.config import child_environment
from app.embedded.process import spawn
from app.sandbox_settings import SandboxSettings

from tests.loopback import loopback
from tests.servers import free_port

_START_SECONDS = 60.0


@dataclass
class SandboxProcess:
    """One sandbox on a port of its own; it can be killed and started again with the same state."""

    settings: SandboxSettings
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.settings.public_url

    @property
    def supabase_url(self) -> str:
        return f"{self.url}/supabase"

    @property
    def storage_directory(self) -> Path:
        return self.settings.home / "storage"

    def start(self) -> None:
        self.process = spawn(
            [sys.executable, "-m", "app.sandbox"],
            log=self.log,
            environment=child_environment(self.settings),
            cwd=str(Path.cwd()),
        )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                loopback.get(f"{self.url}/health").raise_for_status()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sandbox did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self._reap()

    def kill(self) -> None:
        """As a crash would end it."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None


@contextlib.contextmanager
def running_sandbox(
    database_url: str, home: Path, *, drawing: Literal["real", "stock"] = "real", **changes: object
) -> Generator[SandboxProcess]:
    """A sandbox on the database and directory; stopped afterwards. ``stock`` where nobody looks at what it makes.

    ``changes`` are further settings, by the names of their fields.
    """
    port = free_port()
    settings = SandboxSettings.model_validate(
        {
            "home": home / "sandbox",
            "port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "database_url": database_url,
            "work_seconds": 0.1,
            "knobs": json.dumps({"drawing": drawing}),
            **changes,
        }
    )
    sandbox = SandboxProcess(settings, home / "sandbox.log")
    sandbox.start()
    try:
        yield sandbox
    finally:
        sandbox.stop()


__all__ = ["SandboxProcess", "running_sandbox"]
