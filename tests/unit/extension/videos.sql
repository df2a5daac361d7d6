-- What every table of outputs has.
create table public.videos (
  id uuid primary key default gen_random_uuid(),
  task_id text collate "C" not null,
  user_id uuid references auth.users (id) on delete set null,
  prompt text not null default '',
  style text,
  asset_url text,
  status text not null default 'pending' check (status in ('pending', 'processing', 'complete', 'failed', 'canceled')),
  ai_service_task_id text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  metadata jsonb,
  request_id uuid references makeit3d.requests (id) on delete set null,
  job_id uuid references makeit3d.jobs (id) on delete set null,
  number integer not null default 0,
  file_id uuid references makeit3d.files (id) on delete set null,
  preview_url text,
  error_code text,
  error_message text,
  -- those of AssetKind.columns; where kinds share the table, also: kind text not null
  source_concept_image_id uuid references public.concept_images (id) on delete set null,
  width integer,
  height integer,
  check (status <> 'complete' or asset_url is not null)
);
create index videos_task on public.videos (task_id, number);
create index videos_user on public.videos (user_id, created_at desc);
create index videos_job on public.videos (job_id);
create index videos_request on public.videos (request_id);
create index videos_source_concept on public.videos (source_concept_image_id);
create index videos_file on public.videos (file_id);
-- names of a task's outputs are never used twice; of kinds that share the table: (task_id, kind, number)
create unique index videos_number on public.videos (task_id, number) where job_id is not null;

-- Users read their own rows, and nobody but the service writes.
alter table public.videos enable row level security;
revoke all on public.videos from public, anon, authenticated;
grant select, insert, update, delete on public.videos to service_role;
grant select on public.videos to authenticated;
create policy videos_own_select on public.videos for select to authenticated using (user_id = (select auth.uid()));

-- Supabase Realtime, where it exists
do $$
begin
  if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    alter publication supabase_realtime add table public.videos;
  end if;
end $$;
