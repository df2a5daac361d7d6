-- name: sources_of
-- The user's newest row of each kind that holds a file, or that spells its URL in one of these ways.
select (select id from {inputs} where user_id = :user_id and (file_id = :file_id
    or (md5(asset_url) = any(select md5(u) from unnest(:urls::text[]) as u) and asset_url = any(:urls)))
    order by created_at desc limit 1) as input_asset_id,
  (select id from {concept_images} where user_id = :user_id and file_id = :file_id limit 1) as concept_image_id,
  (select id from {models} where user_id = :user_id and file_id = :file_id limit 1) as model_id

-- name: source_of_draft
-- The user's model that a provider task made, with what that was made from.
select id as model_id, source_input_asset_id as input_asset_id, source_concept_image_id as concept_image_id
from {models} where ai_service_task_id = :provider_task_id and user_id = :user_id order by created_at limit 1

-- name: unfinished_outputs
-- What jobs still have to make.
-- each table union all
select job_id, id, {kind} as kind, number, prompt from {table}
where job_id = any(:job_ids::uuid[]) and status in ('pending', 'processing')
-- end
order by number

-- name: outputs_of_step
-- What the jobs of an earlier step of a request made, or those of that step of the request that it retries.
with recursive line (id, retry_of) as (
  select id, retry_of from makeit3d.requests where id = :request_id
  union all
  select r.id, r.retry_of from makeit3d.requests r join line on r.id = line.retry_of
)
select j.output from line join makeit3d.jobs j on j.request_id = line.id
where j.step = :step and j.status = 'completed' order by j.chunk

-- name: store_input_file
-- The object of a client's upload is in the bucket.
update makeit3d.files set state = 'stored', stored_at = now(), size = :size, sha256 = :sha256, width = :width,
  height = :height
where id = :file_id

-- name: insert_input_asset
-- A client's upload is there for all to refer to.
insert into {inputs} (id, task_id, user_id, input_asset_type, asset_url, status, file_id, width, height)
values (:id, :task_id, :user_id, :input_asset_type, :asset_url, 'complete', :file_id, :width, :height)

-- name: tell_input_asset
-- The event of a client's upload.
insert into makeit3d.events (type, user_id, task_id, payload) values ('asset_update', :user_id, :task_id, :payload)
