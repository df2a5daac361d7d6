"""The end of a wait is told like its beginning: readers of the log see why a job waits, and that it goes on."""

from __future__ import annotations

# what ``telling`` needs to know of each job
WOKEN = "j.id, j.task_id, j.request_id, j.user_id, j.type, j.step, j.lane, j.progress, j.error_code"


def telling(source: str) -> str:
    """A CTE that writes an event for each row of the CTE ``source`` (``WOKEN``)."""
    return f"""told as (
  insert into events (type, user_id, task_id, payload)
  select 'job_update', user_id, task_id, jsonb_build_object('task_id', task_id, 'job_id', id,
    'request_id', request_id, 'type', type, 'step', step, 'status', 'queued', 'progress', progress,
    'waiting_for', null, 'error_code', error_code)
  from {source}
)"""  # noqa: S608 - the name of a CTE
