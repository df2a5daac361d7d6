"""Pools and their slots."""

from __future__ import annotations

from collections.abc import Mapping

from app.db.pool import Database


async def ensure(database: Database, pools: Mapping[str, tuple[str, int]]) -> None:
    """Write the configured pools: name → (provider, slots), and their providers. Existing ones get the new number of
    slots."""
    names = sorted(pools)
    await database.execute(
        "insert into providers (name) select distinct unnest($1::text[]) on conflict do nothing",
        sorted({provider for provider, _ in pools.values()}),
    )
    await database.execute(
        "insert into pools (name, provider, slots)"
        " select * from unnest($1::text[], $2::text[], $3::integer[])"
        " on conflict (name) do update set slots = excluded.slots, provider = excluded.provider, updated_at = now()"
        " where (pools.slots, pools.provider) is distinct from (excluded.slots, excluded.provider)",
        names,
        [pools[name][0] for name in names],
        [pools[name][1] for name in names],
    )
