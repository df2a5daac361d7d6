"""Pools and their slots."""

from __future__ import annotations

from collections.abc import Mapping

from app.db.pool import Database
from app.db.sql import load

_SQL = load(__file__)
_PROVIDERS, _POOLS = _SQL["ensure_providers"], _SQL["ensure_pools"]


async def ensure(database: Database, pools: Mapping[str, tuple[str, int]]) -> None:
    """Write the configured pools: name → (provider, slots), and their providers. Existing ones get the new number of
    slots."""
    names = sorted(pools)
    await database.execute(_PROVIDERS, names=sorted({provider for provider, _ in pools.values()}))
    await database.execute(
        _POOLS, names=names, providers=[pools[name][0] for name in names], slots=[pools[name][1] for name in names]
    )
