"""Deriving the status of requests and tasks from their jobs, inside a transaction that holds the task rows."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from app.db.pool import Connection

# Lock order everywhere: tasks by id, then jobs, then assets. A claim skips what is locked and never waits.
_LOCK_TASKS = "select id from tasks where id = any($1) order by id for no key update"

_ROLL_UP_REQUESTS = """
with state as (
  select request_id,
    bool_or(status = 'running') or (bool_or(status = 'queued') and bool_or(status = 'completed')) as running,
    bool_or(status = 'queued') as queued,
    bool_or(status = 'failed') as failed,
    bool_or(status = 'canceled') as canceled,
    (array_agg(error_code order by step, chunk) filter (where status = 'failed'))[1] as error_code
  from jobs where request_id = any($1::uuid[]) group by request_id
), word as (
  select *, case when running then 'running' when queued then 'queued' when failed then 'failed'
    when canceled then 'canceled' else 'completed' end as status
  from state
)
update requests r set
  status = word.status,
  error_code = word.error_code,
  finished_at = case when word.status in ('queued', 'running') then null else now() end,
  matches = r.matches and (r.explicit_key or word.status not in ('failed', 'canceled'))
from word where r.id = word.request_id and r.status <> word.status
"""

_ROLL_UP_TASKS = """
with word as (
  select t.id, coalesce(
    (select max(r.status) from requests r where r.task_id = t.id and r.status in ('queued', 'running')),
    (select r.status from requests r where r.task_id = t.id order by r.number desc limit 1),
    t.status) as status
  from tasks t where t.id = any($1)
), changed as (
  update tasks t set status = word.status, updated_at = now(),
    finished_at = case when word.status in ('queued', 'running') then null else now() end
  from word where t.id = word.id and t.status <> word.status
  returning t.id, t.user_id, t.status
)
insert into events (type, user_id, task_id, payload)
select 'task_update', user_id, id, jsonb_build_object('task_id', id, 'status', status) from changed
"""


async def lock_tasks(connection: Connection, task_ids: Sequence[str]) -> None:
    await connection.execute(_LOCK_TASKS, sorted(set(task_ids)))


async def roll_up(connection: Connection, *, request_ids: Sequence[UUID], task_ids: Sequence[str]) -> None:
    """Bring requests and tasks up to date with their jobs; one event for each task that changed."""
    if request_ids:
        await connection.execute(_ROLL_UP_REQUESTS, list(set(request_ids)))
        await connection.execute(_ROLL_UP_TASKS, sorted(set(task_ids)))
