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
), {end_outputs}
insert into makeit3d.events (type, user_id, task_id, payload)
select 'asset_update', o.user_id, o.task_id,
  makeit3d.asset_event(o.task_id, o.id, o.table_name, o.status, o.asset_url, o.error_code)
from output o;
