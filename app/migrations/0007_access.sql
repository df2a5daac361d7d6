-- Who may do what. Some projects give every new object to everybody: every right is said here.

-- Internal tables: nobody reaches into the schema but its owner and the service.
revoke all on schema makeit3d from public, anon, authenticated;
grant usage on schema makeit3d to service_role;
do $$
declare
  t name;
begin
  for t in select tablename from pg_tables where schemaname = 'makeit3d' loop
    execute format('alter table makeit3d.%I enable row level security', t);
  end loop;
end $$;
revoke all on all tables in schema makeit3d from public, anon, authenticated;
revoke all on all sequences in schema makeit3d from public, anon, authenticated;
revoke all on all functions in schema makeit3d from public, anon, authenticated;
grant select, insert, update, delete on all tables in schema makeit3d to service_role;
grant execute on all functions in schema makeit3d to service_role;
revoke insert, update, delete on makeit3d.migrations from service_role;

-- Browsers read their own assets; they insert, describe and delete their own inputs; nothing else.
alter table public.input_assets enable row level security;
alter table public.concept_images enable row level security;
alter table public.models enable row level security;
revoke all on public.input_assets, public.concept_images, public.models from public, anon, authenticated;
grant select, insert, update, delete on public.input_assets, public.concept_images, public.models to service_role;
grant select on public.input_assets, public.concept_images, public.models to authenticated;
grant insert (id, task_id, user_id, prompt, style, input_asset_type, asset_url, metadata)
  on public.input_assets to authenticated;
grant update (prompt, style, metadata) on public.input_assets to authenticated;
grant delete on public.input_assets to authenticated;

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
-- With another INPUT_BUCKET_NAMES, copy these policies for your bucket. Who does not own Storage's table cannot make
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
