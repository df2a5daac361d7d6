"""One connection that does nothing but listen. It dies silently, so it is asked at intervals whether it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg

_PROBE_SECONDS = 15.0


async def listen(dsn: str, channel: str, *, heard: Callable[[str], None], ready: Callable[[], None]) -> None:
    """Call ``heard`` with each payload until the connection is lost; ``ready`` once it listens.

    Returns when the server closed the connection. Raises one of ``pool.UNREACHABLE`` or asyncpg.PostgresError when it
    can not be opened or stops to answer. Notifications while nobody listens are gone: re-read after ``ready``.
    """
    lost = asyncio.Event()
    connection = await asyncpg.connect(
        dsn, timeout=10, command_timeout=10, server_settings={"application_name": "makeit3d listener"}
    )
    try:
        connection.add_termination_listener(lambda *_: lost.set())
        await connection.add_listener(channel, lambda *args: heard(str(args[3])))
        ready()
        while not lost.is_set():
            try:
                async with asyncio.timeout(_PROBE_SECONDS):
                    await lost.wait()
            except TimeoutError:
                await connection.execute("select 1")
    finally:
        connection.terminate()
