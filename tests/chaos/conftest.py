"""What the suites that break things share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import structlog

from tests.chaos.proxy import Proxy
from tests.integration.conftest import db, settings
from tests.integration.workshop import workshop

__all__ = ["db", "settings", "workshop"]


def tcp_dsn(dsn: str, port: int) -> str:
    """The same database through a port of loopback."""
    parts = urlsplit(dsn)
    return f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"


def socket_of(dsn: str) -> Path:
    """The Unix socket that an embedded server's DSN names."""
    return Path(unquote(parse_qs(urlsplit(dsn).query)["host"][0])) / ".s.PGSQL.5432"


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
