"""Other ways to a test's database than the product's pool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg


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


def run_script(dsn: str, script: str) -> None:
    """Any number of statements on a connection of their own."""

    async def run() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(script)
        finally:
            await connection.close()

    asyncio.run(run())
