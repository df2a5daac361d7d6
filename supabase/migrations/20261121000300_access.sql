-- Who may do what. New objects in public carry no rights by themselves: every right is said here.
set lock_timeout = '5s';

alter table public.tasks enable row level security;
alter table public.requests enable row level security;
alter table public.pools enable row level security;
alter table public.workers enable row level security;
alter table public.jobs enable row level security;
alter table public.provider_calls enable row level security;
alter table public.files enable row level security;
alter table public.events enable row level security;
alter table public.input_assets enable row level security;
alter table public.concept_images enable row level security;
alter table public.models enable row level security;

revoke all on public.tasks, public.requests, public.pools, public.workers, public.jobs, public.provider_calls,
  public.files, public.events, public.input_assets, public.concept_images, public.models
  from public, anon, authenticated;
grant select, insert, update, delete on public.tasks, public.requests, public.pools, public.workers, public.jobs,
  public.provider_calls, public.files, public.events, public.input_assets, public.concept_images, public.models
  to service_role;

-- browsers: read their own rows; insert, describe and delete their own inputs; nothing else
grant select on public.tasks, public.input_assets, public.concept_images, public.models to authenticated;
grant insert (id, task_id, user_id, prompt, style, input_asset_type, asset_url, metadata)
  on public.input_assets to authenticated;
grant update (prompt, style, metadata) on public.input_assets to authenticated;
grant delete on public.input_assets to authenticated;

create policy tasks_own_select on public.tasks for select to authenticated
  using (user_id = (select auth.uid()));
create policy concept_images_own_select on public.concept_images for select to authenticated
  using (user_id = (select auth.uid()));
create policy models_own_select on public.models for select to authenticated
  using (user_id = (select auth.uid()));
create policy input_assets_own_select on public.input_assets for select to authenticated
  using (user_id = (select auth.uid()));
create policy input_assets_own_insert on public.input_assets for insert to authenticated
  with check (user_id = (select auth.uid()));
create policy input_assets_own_update on public.input_assets for update to authenticated
  using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy input_assets_own_delete on public.input_assets for delete to authenticated
  using (user_id = (select auth.uid()));

-- Supabase Realtime, where it exists
do $$
declare
  t text;
begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    return;
  end if;
  foreach t in array array['input_assets', 'concept_images', 'models'] loop
    if not exists (
      select from pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = t
    ) then
      execute format('alter publication supabase_realtime add table public.%I', t);
    end if;
  end loop;
end $$;

-- Uploads of signed-in users go under their own folder of the input bucket, where Storage exists.
-- With another INPUT_BUCKET_NAMES, copy these policies for your bucket. Who does not own Storage's table can not make
-- them: `makeit3d migrate` prints them then, and doctor finds that they are missing.
do $$
begin
  if to_regclass('storage.objects') is null then
    return;
  end if;
  create policy makeit3d_inputs_own_select on storage.objects for select to authenticated
    using (bucket_id = 'user_input_files_bucket' and (storage.foldername(name))[1] = (select auth.uid())::text);
  create policy makeit3d_inputs_own_insert on storage.objects for insert to authenticated
    with check (bucket_id = 'user_input_files_bucket' and (storage.foldername(name))[1] = (select auth.uid())::text);
  create policy makeit3d_inputs_own_update on storage.objects for update to authenticated
    using (bucket_id = 'user_input_files_bucket' and (storage.foldername(name))[1] = (select auth.uid())::text)
    with check (bucket_id = 'user_input_files_bucket' and (storage.foldername(name))[1] = (select auth.uid())::text);
  create policy makeit3d_inputs_own_delete on storage.objects for delete to authenticated
    using (bucket_id = 'user_input_files_bucket' and (storage.foldername(name))[1] = (select auth.uid())::text);
exception when insufficient_privilege then
  raise warning 'the policies on storage.objects must be made by hand: % does not own it', current_user;
end $$;
