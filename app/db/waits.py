"""Why a queued job does not run: the one derivation, for everybody who says it.

The row stores what it waits for; a breaker, a full pool and the absence of a worker follow from other rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.db.pool import Database
from app.domain.jobs import Lane


def reason(*, stored: str, resume: str, held: str, full: str) -> str:
    """The word for a queued job, by SQL expressions: what its row stores, whether it goes on with paid work, whether
    its provider's breaker is not closed, whether its pool has no free slot. Only what is paid needs neither breaker nor
    slot. ``full`` is evaluated where nothing else holds the job."""
    return f"""case
      when {stored} in ('step', 'dependency', 'user_limit') then {stored}
      when {held} and not {resume} then 'breaker'
      when {stored} is not null then {stored}
      when not {resume} and {full} then 'slot'
      else 'worker' end"""


_REASON = reason(
    stored="j.waiting_for", resume="j.resume", held="v.name is not null", full="makeit3d.slots_used(j.pool) >= p.slots"
)

# Joined to ``jobs j``: ``wait.reason``, null unless the job is queued, and ``wait.error_code``, for which a breaker may
# stand in. ``v`` is the provider whose breaker is not closed. The offset keeps the reason from being derived twice.
WAIT = f"""
  join makeit3d.pools p on p.name = j.pool
  left join makeit3d.providers v on v.name = p.provider and v.state <> 'closed'
  cross join lateral (select case when j.status = 'queued' then {_REASON} end as reason offset 0) as derived
  cross join lateral (select derived.reason, case when derived.reason = 'breaker'
    then coalesce(j.error_code, v.error_code) else j.error_code end as error_code) as wait
"""

_LANES_WITH_ROOM = """
select distinct h.lane from makeit3d.claimable_heads() h where h.pool = any($1) and makeit3d.has_room(h.pool)
"""


async def lanes_with_room(database: Database, pools: Sequence[str]) -> set[Lane]:
    """Lanes that hold work of these pools that could be claimed now."""
    return {row["lane"] for row in await database.fetch(_LANES_WITH_ROOM, list(pools))}
