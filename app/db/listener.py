"""One connection that does nothing but listen. It proves every second that it hears, with an echo of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import asyncpg

from app.db.sql import load

_SQL = load(__file__)
_ECHO = _SQL["notify_oneself"]
_ECHO_SECONDS = 1.0
_ANSWER_SECONDS = 10.0


async def listen(
    dsn: str,
    channel: str,
    *,
    heard: Callable[[str], None],
    ready: Callable[[], None],
    confirmed: Callable[[float], None],
) -> None:
    """Call ``heard`` with each payload until the connection is lost; ``ready`` once it listens.

    An echo is a notification to itself. Postgres delivers in the order of commits, so when one comes back, all that was
    notified before it was sent has been heard: ``confirmed`` is told when that was, by ``time.monotonic``. Where the
    other side is silent, no echo comes.

    Returns when the server closed the connection. Raises one of ``pool.UNREACHABLE`` or asyncpg.PostgresError when it
    can not be opened or stops to answer. Notifications while nobody listens are gone: re-read after ``ready``.
    """
    lost = asyncio.Event()
    echoes, sent = f"makeit3d_echo_{uuid4().hex}", dict[str, float]()
    connection = await asyncpg.connect(
        dsn, timeout=10, command_timeout=_ANSWER_SECONDS, server_settings={"application_name": "makeit3d listener"}
    )

    def echoed(*args: object) -> None:
        confirmed(sent.pop(str(args[3])))

    try:
        connection.add_termination_listener(lambda *_: lost.set())
        await connection.add_listener(channel, lambda *args: heard(str(args[3])))
        await connection.add_listener(echoes, echoed)
        ready()
        while not lost.is_set():
            nonce = uuid4().hex
            sent[nonce] = time.monotonic()
            await connection.execute(_ECHO.text, echoes, nonce)
            try:
                async with asyncio.timeout(_ECHO_SECONDS):
                    await lost.wait()
            except TimeoutError:
                continue
    finally:
        connection.terminate()
