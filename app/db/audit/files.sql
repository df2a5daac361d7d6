-- name: complete_outputs
-- Every complete output of a job, with the key its file lies under.
select a.id as asset_id, f.id as file_id, a.task_id, a.kind, a.number, f.key, f.content_type
from (
  select id, task_id, job_id, 'concept' as kind, number, status, file_id from {concepts}
  union all
  select id, task_id, job_id, kind, number, status, file_id from {models}
) as a join makeit3d.files f on f.id = a.file_id
where a.status = 'complete' and a.job_id is not null

-- name: manifest
-- Every result in a bucket that is not removed.
select id, key, state, size, sha256 from makeit3d.files
where bucket = :bucket and state <> 'removed' and kind <> 'input'

-- name: manifest_of_keys
-- The rows of these keys.
select id, key, state, size, sha256 from makeit3d.files
where bucket = :bucket and key = any(:keys) and state <> 'removed'
