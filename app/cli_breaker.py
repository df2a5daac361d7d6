"""``makeit3d breaker``: which providers take work, and closing a breaker once what was wrong is mended."""

from __future__ import annotations

import json
from dataclasses import asdict

import asyncpg
from rich.console import Console
from rich.table import Table

from app.container import OperatorContainer
from app.db import breakers
from app.db.breakers import Breaker
from app.db.pool import UNREACHABLE
from app.domain.breakers import BreakerState
from app.errors import AppError, ErrorCode
from app.registry import Registry
from app.tasks.bells import celery_bells


async def list_breakers(console: Console, registry: Registry, *, as_json: bool) -> None:
    """Print the breaker of every provider. Raises AppError."""
    gateway = await _open(registry)
    try:
        found = await breakers.read_all(gateway.database)
    finally:
        await gateway.aclose()
    if as_json:
        console.out(json.dumps([asdict(item) for item in found]), highlight=False)
        return
    table = Table("provider", "state", "reason", "open for", "next probe", "openings", box=None, pad_edge=False)
    for item in found:
        table.add_row(*_row(item))
    console.print(table)


async def close_breaker(console: Console, registry: Registry, provider: str) -> None:
    """Let all jobs of the provider go on now. Raises AppError."""
    gateway = await _open(registry)
    try:
        known = {item.provider for item in await breakers.read_all(gateway.database)}
        if provider not in known:
            names = ", ".join(sorted(known))
            raise AppError(ErrorCode.NOT_FOUND, f"No such provider; there are {names}.")
        closed = await gateway.breakers.close(provider)
    finally:
        await gateway.aclose()
    console.print(f"{provider}: closed, its jobs go on" if closed else f"{provider}: was closed already")


async def _open(registry: Registry) -> OperatorContainer:
    settings = registry.providers.settings.load()
    try:
        return await OperatorContainer.open(settings, celery_bells(settings), registry)
    except (*UNREACHABLE, asyncpg.PostgresError) as error:
        detail = f"The database can not be opened ({type(error).__name__}): check DATABASE_URL and the server."
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, detail) from None


def _row(item: Breaker) -> tuple[str, ...]:
    colour = "green" if item.state is BreakerState.CLOSED else "red"
    return (
        item.provider,
        f"[{colour}]{item.state}[/]",
        item.error_code or "",
        "" if item.open_seconds is None else f"{item.open_seconds:.0f} s",
        "" if item.probe_seconds is None else f"in {max(0.0, item.probe_seconds):.0f} s",
        str(item.trips) if item.trips else "",
    )
