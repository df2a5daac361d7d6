-- A database with a million jobs, four to a request: most have ended, some run, wait or are claimable. Ids tell what a
-- row is: its kind in the first group, its number in the last. The role is a superuser; no trigger and no check of
-- foreign keys costs anything here, as every row is of this file.
set session_replication_role = replica;
set synchronous_commit = off;
set maintenance_work_mem = '256MB';

-- indexes are made at the end, of what is there
create temporary table without_index as
select format('drop index %I.%I', schemaname, indexname) as drop, indexdef as make from pg_indexes
where schemaname in ('makeit3d', 'public') and tablename in ('tasks', 'requests', 'jobs', 'provider_calls',
  'concept_images', 'models', 'files', 'events') and indexname not in (select conname from pg_constraint);
do $$
declare
  one record;
begin
  for one in select * from without_index loop
    execute one.drop;
  end loop;
end $$;

create function pg_temp.an_id(kind integer, n bigint) returns uuid language sql immutable as $$
  select (lpad(kind::text, 8, '0') || '-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid
$$;

insert into auth.users (id) select pg_temp.an_id(1, n) from generate_series(1, 5000) as n;
insert into makeit3d.workers (id, name, host, pid, lanes, slots) values
  (pg_temp.an_id(9, 1), 'lives', 'here', 1, '{priority,normal}', 100);
insert into makeit3d.providers (name) values ('openai'), ('tripo');
insert into makeit3d.pools (name, provider, slots) values
  ('openai', 'openai', 1000), ('tripo_h', 'tripo', 1000), ('tripo_p', 'tripo', 1000);

-- what became of a request: every tenth is of one user
create table public.million as
select r, pg_temp.an_id(2, r) as id, 'task-' || lpad(r::text, 8, '0') as task_id,
  pg_temp.an_id(1, case when r % 10 = 0 then 1 else 2 + r % 4999 end) as user_id,
  now() - interval '90 days' + r * interval '30 seconds' as created_at,
  (array['openai', 'tripo_h', 'tripo_p'])[1 + r % 3] as pool,
  case when r % 20 = 0 then 'priority' else 'normal' end as lane,
  case
    when r <= 212000 then case when r % 33 = 0 then 'failed' else 'completed' end
    when r <= 212200 then 'running'
    else 'queued' end as status,
  case
    when r between 212001 and 212100 then 'lives'
    when r between 212101 and 212150 then 'lost'
    when r between 212151 and 212200 then 'overdue'
    when r between 212201 and 230000 then 'claimable'
    when r > 230000 then (array['retry', 'user_limit', 'breaker', 'dependency'])[1 + r % 4]
    else 'ended' end as word
from generate_series(1, 250000) as r;

insert into makeit3d.tasks (id, user_id, status, created_at)
select task_id, user_id, status, created_at from public.million;
insert into makeit3d.requests (id, task_id, user_id, operation, scope, idempotency_key, explicit_key, body_hash, job_id,
  status, created_at)
select id, task_id, user_id, 'test', task_id, 'key', true, 'hash', pg_temp.an_id(3, r * 4), status, created_at
from public.million;

insert into makeit3d.jobs (id, task_id, request_id, user_id, step, type, provider, pool, lane, priority, fair_tag, status,
  waiting_for, run_after, resume, worker_id, attempt, deadline, params, has_next, permit, error_code, created_at,
  started_at, finished_at)
select pg_temp.an_id(3, (m.r - 1) * 4 + s), m.task_id, m.id, m.user_id, s,
  case when m.pool = 'openai' then 'generate_images' else 'generate_model' end,
  case when m.pool = 'openai' then 'openai' else 'tripo' end, m.pool, m.lane, 50, m.r,
  case when s = 1 or m.status in ('completed', 'failed') then m.status else 'queued' end,
  case when m.status not in ('running', 'queued') then null when s > 1 then 'step'
    when m.word in ('retry', 'user_limit', 'breaker', 'dependency') then m.word end,
  case when s = 1 and m.word = 'retry' then now() + case when m.r < 230200 then '-1 minute' else interval '1 hour' end end,
  s = 1 and m.word = 'claimable' and m.r <= 212300 and m.r % 10 = 0,
  case when s = 1 and m.status = 'running' then pg_temp.an_id(9, case when m.word = 'lost' then 2 else 1 end) end,
  case when m.word = 'ended' or (s = 1 and m.word <> 'claimable') then 1 else 0 end,
  case when s = 1 and m.status = 'running' then now() + case when m.word = 'overdue' then '-1 hour' else interval '1 hour' end end,
  '{}', s < 4, 'paid', case when m.status = 'failed' then 'provider_task_failed' end, m.created_at,
  case when m.word = 'ended' or (s = 1 and m.status = 'running') then m.created_at end,
  case when m.word = 'ended' then m.created_at + interval '1 minute' end
from public.million m, generate_series(1, 4) as s;

insert into makeit3d.provider_calls (id, job_id, task_id, user_id, attempt, worker_id, provider, pool, kind, state,
  request_hash, estimate_micros, price_version, deadline, provider_task_id, cost_micros, created_at)
select pg_temp.an_id(4, r), pg_temp.an_id(3, (r - 1) * 4 + 1), task_id, user_id, 1, pg_temp.an_id(9, 2),
  case when pool = 'openai' then 'openai' else 'tripo' end, pool, 'a kind',
  case when r <= 60 then 'submitted' when r <= 120 then 'unknown' when word = 'lives' then 'submitted' else 'settled' end,
  'hash', 40000, 'test', now() - interval '1 day', case when r <= 60 or r > 120 then 'provider-' || r end, 40000, created_at
from public.million where r <= 212100;

insert into public.concept_images (id, task_id, user_id, request_id, job_id, number, status, asset_url)
select pg_temp.an_id(5, r), task_id, user_id, id, pg_temp.an_id(3, (r - 1) * 4 + 1), 0,
  case status when 'completed' then 'complete' when 'failed' then 'failed' when 'running' then 'processing' else 'pending' end,
  'a link'
from public.million where pool = 'openai';
insert into public.models (id, task_id, user_id, request_id, job_id, number, status, asset_url)
select pg_temp.an_id(6, r), task_id, user_id, id, pg_temp.an_id(3, (r - 1) * 4 + 1), 0,
  case status when 'completed' then 'complete' when 'failed' then 'failed' when 'running' then 'processing' else 'pending' end,
  'a link'
from public.million where pool <> 'openai';
insert into makeit3d.files (id, bucket, key, task_id, user_id, job_id, kind, state, content_type, created_at)
select pg_temp.an_id(7, r), 'bucket', 'key/' || r, task_id, user_id, pg_temp.an_id(3, (r - 1) * 4 + 1), 'concept',
  case when status = 'running' then 'uploading' else 'stored' end, 'image/png', created_at
from public.million where r <= 212200;
insert into makeit3d.events (xid, type, user_id, task_id, payload, created_at) -- xids of long ago
select (3 + n / 4000)::text::xid8, 'job_update', m.user_id, m.task_id, '{}', m.created_at
from generate_series(1, 500000) as n join public.million m on m.r = 1 + n / 2;
insert into makeit3d.user_tags (user_id, pool, lane, priority, tag)
select user_id, pool, lane, 50, max(r) from public.million group by user_id, pool, lane;
drop table public.million;

do $$
declare
  one record;
begin
  for one in select * from without_index loop
    execute one.make;
  end loop;
end $$;
analyze;
