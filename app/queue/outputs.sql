-- name: finish_outputs
-- Files that are stored, the rows that have them, and rows that will never have one.
with file as (
  select * from jsonb_to_recordset(:files::jsonb) as x(file_id uuid, asset_id uuid, kind text, url text,
    content_type text, size bigint, sha256 text, width integer, height integer, preview_url text, preview_file_id uuid,
    preview_size bigint, preview_sha256 text, provider_task_id text)
), stored as (
  update makeit3d.files f set state = 'stored', stored_at = now(), content_type = x.content_type, size = x.size,
    sha256 = x.sha256, width = x.width, height = x.height
  from (
    select file_id, content_type, size, sha256, width, height from file
    union all
    select preview_file_id, 'image/webp', preview_size, preview_sha256, null, null from file
    where preview_file_id is not null
  ) as x
  where f.id = x.file_id and f.state = 'uploading'
), missed as (
  select * from jsonb_to_recordset(:ended::jsonb) as x(job_id uuid, asset_id uuid, status text, error_code text,
    error_message text)
), item as (
  insert into makeit3d.job_items (job_id, key, position, status, error_code, error_message, output)
  select x.job_id, x.key, x.position, x.status, x.error_code, x.error_message, x.output
  from jsonb_to_recordset(:items::jsonb) as x(job_id uuid, key text, position integer, status text, error_code text,
    error_message text, output jsonb)
  on conflict (job_id, key) do update set status = excluded.status, error_code = excluded.error_code,
    error_message = excluded.error_message, output = excluded.output, updated_at = now()
  where (job_items.status, job_items.output) is distinct from (excluded.status, excluded.output)
  returning job_id, key, status, error_code, output
), {end_outputs}
insert into makeit3d.events (type, user_id, task_id, payload)
select 'asset_update', o.user_id, o.task_id,
  makeit3d.asset_event(o.task_id, o.id, o.table_name, o.status, o.asset_url, o.error_code)
from output o
union all
select 'item_update', j.user_id, j.task_id,
  makeit3d.item_event(j.task_id, i.job_id, i.key, i.status, i.error_code, i.output)
from item i join makeit3d.jobs j on j.id = i.job_id;

-- name: record_items
-- Items that ended while their job goes on; a stale lease changes nothing. Never backwards: 100 is for a finished job.
with lease as (
  select j.id, j.task_id, j.user_id, j.items_total from makeit3d.jobs j
  where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
  for no key update
), item as (
  insert into makeit3d.job_items (job_id, key, position, status, error_code, error_message, output)
  select lease.id, x.key, x.position, x.status, x.error_code, x.error_message, x.output
  from lease, jsonb_to_recordset(:items::jsonb) as x(key text, position integer, status text, error_code text,
    error_message text, output jsonb)
  on conflict (job_id, key) do update set status = excluded.status, error_code = excluded.error_code,
    error_message = excluded.error_message, output = excluded.output, updated_at = now()
  where (job_items.status, job_items.output) is distinct from (excluded.status, excluded.output)
  returning job_id, key, status, error_code, output
), event as (
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'item_update', lease.user_id, lease.task_id,
    makeit3d.item_event(lease.task_id, i.job_id, i.key, i.status, i.error_code, i.output)
  from lease, item i
), counted as (
  select lease.id, lease.items_total, (select count(*) from item) + (
    select count(*) from makeit3d.job_items before where before.job_id = lease.id and before.status <> 'pending'
      and not exists (select from item where item.key = before.key)) as done
  from lease
)
update makeit3d.jobs j set items_done = counted.done,
  progress = greatest(j.progress, least(99, coalesce(100 * counted.done / nullif(counted.items_total, 0), 0)))
from counted where j.id = counted.id
returning j.task_id, j.user_id;
