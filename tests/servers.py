"""Real servers for tests: Postgres (two majors), Valkey, and fresh databases copied from a migrated template."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg
from app.db.migrate import migrate
from app.embedded.bootstrap import bootstrap
from app.embedded.postgres import Distribution, EmbeddedPostgres
from app.embedded.valkey import EmbeddedValkey

_TEMPLATE = "migrated"


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server_home(name: str) -> Generator[Path]:
    """A short directory that an unprivileged server can reach; removed afterwards."""
    home = Path(tempfile.mkdtemp(prefix=f"mk3d-{name}-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class PostgresServer:
    """A running server with a migrated template."""

    postgres: EmbeddedPostgres
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    @contextlib.contextmanager
    def running(cls, distribution: Distribution, *, durable: bool = False) -> Generator[PostgresServer]:
        """``durable`` where what was committed must outlive a crash of the server."""
        with server_home("pg") as home:
            postgres = EmbeddedPostgres(home, distribution=distribution, durable=durable, max_connections=200)
            postgres.start()
            try:
                server = cls(postgres)
                asyncio.run(server._make_template())
                yield server
            finally:
                postgres.stop()

    async def _make_template(self) -> None:
        await self._admin(f"create database {_TEMPLATE}")
        await bootstrap(self.postgres.dsn(_TEMPLATE))
        await migrate(self.postgres.dsn(_TEMPLATE))

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @contextlib.contextmanager
    def fresh_database(self, template: str = _TEMPLATE) -> Generator[str]:
        """The DSN of a database of one's own; dropped afterwards, whoever is still connected."""
        name = f"t{next(self._numbers)}"
        asyncio.run(self._admin(f"create database {name} template {template} strategy file_copy"))
        try:
            yield self.postgres.dsn(name)
        finally:
            asyncio.run(self._admin(f"drop database {name} with (force)"))


@contextlib.contextmanager
def running_valkey() -> Generator[EmbeddedValkey]:
    with server_home("vk") as home:
        server = EmbeddedValkey(home)
        server.start()
        try:
            yield server
        finally:
            server.stop()
