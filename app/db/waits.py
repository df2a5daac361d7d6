"""Why a queued job does not run: the one derivation, for everybody who says it.

The row stores what it waits for; a breaker, a full pool and the absence of a worker follow from other rows.
"""

from __future__ import annotations


def slots_used(pool: str, *, waiting_in_line: bool = True) -> str:
    """How many slots of a pool are taken: by running jobs whose last call is not yet accepted, and by open calls, each
    once. ``pool`` is an SQL expression of its name. A job that gave its slot back holds none; one that waits to have it
    again counts ``waiting_in_line``, so that no queued job passes it."""
    held = "r.slot <> 'lent'" if waiting_in_line else "r.slot = 'held'"
    return f"""((
    select count(*) from jobs r where r.pool = {pool} and r.status = 'running' and not r.calls_done and {held}
      and not exists (select from provider_calls c
        where c.job_id = r.id and c.state in ('intent', 'submitted', 'unknown'))
  ) + (
    select count(*) from provider_calls c where c.pool = {pool} and c.state in ('intent', 'submitted', 'unknown')
  ))"""  # noqa: S608 - constants


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
    stored="j.waiting_for", resume="j.resume", held="v.name is not null", full=f"{slots_used('j.pool')} >= p.slots"
)

# Joined to ``jobs j``: ``wait.reason``, null unless the job is queued, and ``wait.error_code``, for which a breaker may
# stand in. ``v`` is the provider whose breaker is not closed. The offset keeps the reason from being derived twice.
WAIT = f"""
  join pools p on p.name = j.pool
  left join providers v on v.name = p.provider and v.state <> 'closed'
  cross join lateral (select case when j.status = 'queued' then {_REASON} end as reason offset 0) as derived
  cross join lateral (select derived.reason, case when derived.reason = 'breaker'
    then coalesce(j.error_code, v.error_code) else j.error_code end as error_code) as wait
"""
