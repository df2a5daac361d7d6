-- The manifest: every object of ours in the bucket is a row.

create table makeit3d.files (
  id uuid primary key,
  bucket text collate "C" not null,
  key text collate "C" not null,
  task_id text collate "C",
  user_id uuid,
  job_id uuid references makeit3d.jobs (id) on delete set null,
  attempt integer,
  -- 'input', 'preview', or the kind of asset that it is
  kind text not null check (kind ~ '^[a-z][a-z0-9_]*$'),
  state text not null default 'uploading' check (state in ('uploading', 'stored', 'removed')),
  content_type text not null,
  size bigint check (size >= 0),
  sha256 text,
  width integer,
  height integer,
  -- unguessable part of the never-expiring link; null revokes it
  content_key text,
  created_at timestamptz not null default now(),
  stored_at timestamptz
);
create unique index files_key on makeit3d.files (bucket, key) where state <> 'removed';
create index files_job on makeit3d.files (job_id);
create index files_uploading on makeit3d.files (created_at) where state = 'uploading';
