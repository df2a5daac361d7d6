"""For suites of SQL: the ``database`` fixture on both Postgres majors that are installed."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.servers import PostgresServer


@pytest.fixture(params=["postgres18", "postgres17"])
def database(request: pytest.FixtureRequest) -> Generator[str]:
    """The DSN of a migrated database of one's own, on each major in turn."""
    server: PostgresServer = request.getfixturevalue(request.param)
    with server.fresh_database() as dsn:
        yield dsn
