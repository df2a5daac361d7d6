-- name: announce_file
-- A row for an output before its upload; one of the same job under the same key is taken over: an earlier run left it.
insert into makeit3d.files (id, bucket, key, task_id, user_id, job_id, attempt, kind, content_type, content_key)
select :file_id, :bucket, :key, j.task_id, j.user_id, j.id, j.attempt, :kind, :content_type, :content_key
from makeit3d.jobs j
where j.id = :job_id and j.worker_id = :worker_id and j.attempt = :attempt and j.status = 'running'
on conflict (bucket, key) where state <> 'removed' do update set attempt = excluded.attempt,
  content_type = excluded.content_type
where files.job_id = excluded.job_id and files.state = 'uploading'
returning id, content_key

-- name: insert_input_file
-- A row for a client's upload, before it begins.
insert into makeit3d.files (id, bucket, key, task_id, user_id, kind, content_type, content_key)
values (:id, :bucket, :key, :task_id, :user_id, :kind, :content_type, :content_key)

-- name: file_by_key
-- The file that lies under a key.
select * from makeit3d.files where bucket = :bucket and key = :key and state <> 'removed'

-- name: file_by_id
-- A file that is there.
select * from makeit3d.files where id = :file_id and state <> 'removed'

-- name: object_of_file
-- Where a user's file lies or lay.
select bucket, key from makeit3d.files where id = :file_id and user_id = :user_id

-- name: owner_in_storage
-- Whose an object is, as Storage recorded it.
select owner_id from storage.objects where bucket_id = :bucket and name = :key

-- name: abandoned_uploads
-- Uploads of jobs that ended long ago, and of no job from long ago: nobody is still at them.
select f.* from makeit3d.files f left join makeit3d.jobs j on j.id = f.job_id
where f.state = 'uploading' and case when j.id is null
  then f.created_at < now() - make_interval(secs => :unowned_seconds)
  else j.status in ('completed', 'failed', 'canceled')
    and j.finished_at < now() - make_interval(secs => :ended_seconds) end
order by f.created_at limit :limit

-- name: unstored_files_of
-- Files of a job that ended without them, those called removed too: a process that was held up may have stored one late.
select f.* from makeit3d.files f join makeit3d.jobs j on j.id = f.job_id
where f.job_id = :job_id and f.state <> 'stored' and j.status in ('completed', 'failed', 'canceled')

-- name: mark_file_removed
-- Nothing lies under the key any more.
update makeit3d.files set state = 'removed' where id = :file_id and state = 'uploading'
