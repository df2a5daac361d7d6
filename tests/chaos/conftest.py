"""What the suites that break things share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import hypothesis
import pytest
import structlog
from app.container import user_limits
from app.db.pool import Database
from app.services.notifier import Notifier
from app.services.publisher import Publisher
from app.services.retries import Retries

from tests import kernel
from tests.chaos.databases import socket_of
from tests.chaos.proxy import Proxy
from tests.chaos.stack import Stack
from tests.integration.conftest import db, settings
from tests.integration.factories import settings_for
from tests.integration.workshop import RoomBells, Workshop, workshop

__all__ = ["db", "settings", "workshop"]

hypothesis.settings.register_profile("soak")  # `--hypothesis-profile=soak`: suites draw more, and other, cases


@pytest.fixture(autouse=True)
def plain_logs() -> Generator[None]:
    """The console's drawn tracebacks hold a loop up for longer than the outages under test."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def complaints() -> list[str]:
    """What the test's loop was told went wrong, for nobody took it."""
    found: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context["message"]))
    return found


@pytest.fixture
def stack(shared: Stack) -> Generator[Stack]:
    """The module's own, well again after each test."""
    yield shared
    shared.heal()


@pytest.fixture
def database_proxy(database: str) -> Generator[Proxy]:
    """A proxy in front of the test's own database."""
    with Proxy.to(socket_of(database)) as proxy:
        yield proxy


@pytest.fixture
async def direct(database: str, tmp_path: Path) -> AsyncGenerator[Database]:
    """The same database, past the proxy."""
    opened = await Database.open(settings_for(database, tmp_path), kernel.ASSET_KINDS, application_name="makeit3d test")
    yield opened
    await opened.close()


@pytest.fixture
async def retries(shop: Workshop) -> AsyncGenerator[Retries]:
    """An operator's retries, in the suite's own ``shop``."""
    notifier = Notifier(shop.db)
    publisher = Publisher(kernel.queue_of(shop.db), RoomBells(shop.workers), notifier, user_limits(shop.settings))
    yield Retries(kernel.queue_of(shop.db), publisher)
    await publisher.aclose()
    await notifier.aclose()
