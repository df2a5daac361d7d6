"""What the suites that break things share."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import hypothesis
import pytest
import structlog

from tests.chaos.proxy import Proxy
from tests.integration.conftest import db, settings
from tests.integration.workshop import workshop

__all__ = ["db", "settings", "workshop"]

hypothesis.settings.register_profile("soak")  # `--hypothesis-profile=soak`: suites draw more, and other, cases


def tcp_dsn(dsn: str, port: int) -> str:
    """The same database through a port of loopback."""
    parts = urlsplit(dsn)
    return f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"


def socket_of(dsn: str) -> Path:
    """The Unix socket that an embedded server's DSN names."""
    return Path(unquote(parse_qs(urlsplit(dsn).query)["host"][0])) / ".s.PGSQL.5432"


def run_sql(dsn: str, query: str, *args: object) -> list[asyncpg.Record]:
    """One statement on a connection of its own."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def plain_logs() -> Generator[None]:
    """The console's drawn tracebacks hold a loop up for longer than the outages under test."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
def database_proxy(database: str) -> Generator[Proxy]:
    """A proxy in front of the test's own database."""
    with Proxy.to(socket_of(database)) as proxy:
        yield proxy
