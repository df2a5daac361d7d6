-- name: journal_of
-- The provider's calls from a moment on, oldest first.
select id, job_id, kind, state, error_code, provider_task_id, provider_request_id, cost_micros, cost_is_estimate,
  created_at, deadline
from makeit3d.provider_calls where provider = :provider and created_at >= :since order by created_at, id
