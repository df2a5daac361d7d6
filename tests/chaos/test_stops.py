"""Who is told to end ends well: before all of it has begun, and while a broker is silent."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
import redis
from app.config import Settings, child_environment
from app.db.pool import Database
from app.embedded.valkey import EmbeddedValkey
from pydantic import SecretStr

from tests.chaos.proxy import Proxy
from tests.chaos.stack import valkey_socket
from tests.e2e.gateway import REPOSITORY, wait_for
from tests.integration.factories import settings_for
from tests.servers import free_port

pytestmark = pytest.mark.chaos

HANG = 120.0  # seconds; a limit for a hung test
NOWHERE = f"postgresql://app@127.0.0.1:{free_port()}/postgres"


@contextlib.contextmanager
def running(settings: Settings, *command: str, **changes: str) -> Generator[subprocess.Popen[bytes]]:
    environment: Mapping[str, str] = {**child_environment(settings), "PYTHONPATH": str(REPOSITORY), **changes}
    with (settings.home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *command], env=environment, cwd=settings.home, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ended(process: subprocess.Popen[bytes], home: Path) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG) == 0, (home / "log").read_text()


async def test_a_worker_that_has_only_begun_leaves_as_warmly_as_later(
    database: str, direct: Database, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """It claims before Celery listens to signals."""
    settings = settings_for(database, tmp_path, redis_url=SecretStr(valkey.url()))
    with running(settings, "worker") as worker:
        async with asyncio.timeout(HANG):
            while not await direct.fetchval("select count(*) from makeit3d.workers"):
                await asyncio.sleep(0.005)
        await asyncio.to_thread(ended, worker, tmp_path)
    assert await direct.fetchval("select count(*) from makeit3d.workers") == 0


@pytest.fixture
def broker(valkey: EmbeddedValkey) -> Generator[Proxy]:
    with Proxy.to(valkey_socket(valkey)) as proxy:
        yield proxy


def test_beat_ends_while_a_silent_broker_holds_up_its_bell(
    valkey: EmbeddedValkey, broker: Proxy, tmp_path: Path
) -> None:
    settings = settings_for(NOWHERE, tmp_path, redis_url=SecretStr(f"redis://127.0.0.1:{broker.port}/0"))
    with running(settings, "beat") as beat, redis.Redis(unix_socket_path=str(valkey_socket(valkey))) as queue:

        def rung() -> bool | None:
            return queue.llen("normal") != 0 or None

        wait_for(rung)
        queue.delete("normal")
        broker.mute()
        wait_for(rung)  # the bell is there, and beat waits to hear so
        ended(beat, tmp_path)
