-- The three asset tables that clients read and subscribe to: with their rights, all that we have in schema public.

create table public.input_assets (
  id uuid primary key default gen_random_uuid(),
  task_id text collate "C" not null check (task_id ~ '^[A-Za-z0-9_-]{8,64}$'),
  user_id uuid references auth.users (id) on delete set null,
  prompt text,
  style text,
  input_asset_type text not null, -- 'text_prompt', 'uploaded_photo', 'uploaded_sketch', …
  asset_url text,
  status text not null default 'pending' check (status in ('pending', 'processing', 'complete', 'failed', 'canceled')),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  metadata jsonb,
  file_id uuid references makeit3d.files (id) on delete set null,
  width integer,
  height integer,
  error_code text,
  error_message text
);
create index input_assets_task on public.input_assets (task_id);
create index input_assets_user on public.input_assets (user_id, created_at desc);
create index input_assets_url on public.input_assets (user_id, md5(asset_url));

create table public.concept_images (
  id uuid primary key default gen_random_uuid(),
  task_id text collate "C" not null,
  user_id uuid references auth.users (id) on delete set null,
  source_input_asset_id uuid references public.input_assets (id) on delete set null,
  source_concept_image_id uuid references public.concept_images (id) on delete set null,
  prompt text not null default '',
  style text,
  asset_url text, -- null until the status is complete
  status text not null default 'pending' check (status in ('pending', 'processing', 'complete', 'failed', 'canceled')),
  ai_service_task_id text, -- the provider's id of the call that made it
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  metadata jsonb,
  request_id uuid references makeit3d.requests (id) on delete set null,
  job_id uuid references makeit3d.jobs (id) on delete set null,
  number integer not null default 0,
  file_id uuid references makeit3d.files (id) on delete set null,
  width integer,
  height integer,
  preview_url text,
  error_code text,
  error_message text,
  check (status <> 'complete' or asset_url is not null)
);
create index concept_images_task on public.concept_images (task_id, number);
create index concept_images_user on public.concept_images (user_id, created_at desc);
create index concept_images_job on public.concept_images (job_id);
create index concept_images_request on public.concept_images (request_id);
create index concept_images_source_input on public.concept_images (source_input_asset_id);
create index concept_images_source_concept on public.concept_images (source_concept_image_id);
create index concept_images_file on public.concept_images (file_id);

create table public.models (
  id uuid primary key default gen_random_uuid(),
  task_id text collate "C" not null,
  user_id uuid references auth.users (id) on delete set null,
  source_input_asset_id uuid references public.input_assets (id) on delete set null,
  source_concept_image_id uuid references public.concept_images (id) on delete set null,
  source_model_id uuid references public.models (id) on delete set null,
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
  kind text not null default 'model' check (kind in ('model', 'refined_model')),
  number integer not null default 0,
  file_id uuid references makeit3d.files (id) on delete set null,
  preview_url text,
  error_code text,
  error_message text,
  check (status <> 'complete' or asset_url is not null)
);
create index models_task on public.models (task_id, number);
create index models_user on public.models (user_id, created_at desc);
create index models_job on public.models (job_id);
create index models_request on public.models (request_id);
create index models_source_input on public.models (source_input_asset_id);
create index models_source_concept on public.models (source_concept_image_id);
create index models_source_model on public.models (source_model_id);
create index models_file on public.models (file_id);
create index input_assets_file on public.input_assets (file_id);

-- names of a task's outputs are never used twice
create unique index concept_images_number on public.concept_images (task_id, number) where job_id is not null;
create unique index models_number on public.models (task_id, kind, number) where job_id is not null;
