"""Makes a plain Postgres look like the one that Supabase provides, before our migrations."""

from __future__ import annotations

from importlib import resources

import asyncpg


async def bootstrap(dsn: str) -> None:
    """Roles, the auth and storage schemas and the Realtime publication. Needs a superuser; safe to repeat."""
    script = resources.files("app.embedded").joinpath("bootstrap.sql").read_text(encoding="utf-8")
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(script)
    finally:
        await connection.close()
