-- name: asset_has_file
-- a complete output row names a stored file of its own job, and its link leads there
select jsonb_build_object('asset', a.id, 'job', a.job_id, 'file', a.file_id) as ids,
  format('%s row is complete; file is %s%s', a.table_name, coalesce(f.state, 'missing'),
    case when f.id is null then '' else format(', of job %s, at %s; link %s', f.job_id, f.key, a.asset_url) end)
    as found
from asset a left join makeit3d.files f on f.id = a.file_id
where a.status = 'complete' and (f.id is null or f.state <> 'stored' or f.job_id is distinct from a.job_id
  or f.kind <> a.kind
  or not (a.asset_url like '%/' || f.key
    or a.asset_url like format('%%/assets/%s/content?key=%s', f.id, f.content_key)))

-- name: input_has_file
-- a complete input row that names a file names a stored one
select jsonb_build_object('asset', a.id, 'file', a.file_id) as ids, format('file is %s', f.state) as found
from {inputs} a join makeit3d.files f on f.id = a.file_id where a.status = 'complete' and f.state <> 'stored'

-- name: file_has_asset
-- a stored output or preview belongs to a complete row of its job
select jsonb_build_object('file', f.id, 'job', f.job_id, 'key', f.key) as ids,
  format('%s file is stored, its job is %s', f.kind, j.status) as found
from makeit3d.files f join makeit3d.jobs j on j.id = f.job_id
where f.state = 'stored' and not case f.kind
  when 'preview' then exists (select from jsonb_array_elements(j.output->'files') as o
    where o->>'preview_file_id' = f.id::text)
  else exists (select from asset a where a.file_id = f.id and a.status = 'complete') end

-- name: stored_is_measured
-- a stored file has a size and a time, and an output a digest
select jsonb_build_object('file', id, 'key', key) as ids,
  format('%s file: size %s, stored %s, sha256 %s', kind, coalesce(size::text, 'unknown'),
    coalesce(stored_at::text, 'never'), coalesce(sha256, 'unknown')) as found
from makeit3d.files where state = 'stored' and (size is null or stored_at is null or sha256 is null)

-- name: uploads_end
-- an unfinished upload belongs to a job that is under way, or is removed soon
select jsonb_build_object('file', f.id, 'job', f.job_id, 'key', f.key) as ids,
  format('uploading since %s; job %s', f.created_at, coalesce(j.status, 'none')) as found
from patience, makeit3d.files f left join makeit3d.jobs j on j.id = f.job_id
where f.state = 'uploading' and case when j.id is null then f.created_at < now() - patience.unowned
  else j.finished_at < now() - patience.leftovers end

-- name: complete_outputs
-- Every complete output of a job, with the key its file lies under.
select a.id as asset_id, f.id as file_id, a.task_id, a.kind, a.number, f.key, f.content_type
from (
-- each table union all
  select id, task_id, job_id, {kind} as kind, number, status, file_id from {table}
-- end
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
