-- name: claim_jobs
-- Up to :most jobs of the lanes, in order of the lanes, with their outputs; in one round trip. makeit3d.pick_jobs locks
-- and chooses; a job that was accepted after this statement began is left to the next claim, with its outputs.
with picked as materialized (
  select * from makeit3d.pick_jobs(:lanes::text[], :types::text[], :host::text, :most::integer)
), taken as (
  update makeit3d.jobs j set status = 'running', worker_id = :worker_id, attempt = j.attempt + 1, resume = false,
    slot = 'held', started_at = coalesce(j.started_at, now()),
    deadline = now() + make_interval(secs => coalesce(j.seconds_left, (:time_limits::jsonb ->> j.type)::float8))
  from picked p, unnest(p.picked) as one(id) where j.id = one.id
  returning j.id, j.task_id, j.request_id, j.user_id, j.step, j.chunk, j.type, j.provider, j.pool, j.lane, j.priority,
    j.fair_tag, j.params, j.worker_id, j.attempt, j.failures, j.deferrals, j.crashes, j.alone, j.created_at,
    j.deadline, j.retry_of, j.trace_id, j.kept_call, j.kept_host, j.kept_until, j.kept_pictures
), tag as (
  -- the pools of fresh jobs are locked by this claim; a resumed job had its turn before
  insert into makeit3d.pool_tags (pool, lane, priority, tag)
  select t.pool, t.lane, t.priority, max(t.fair_tag) from taken t, picked p where t.id = any(p.fresh)
  group by t.pool, t.lane, t.priority
  on conflict (pool, lane, priority) do update set tag = excluded.tag where pool_tags.tag < excluded.tag
), probe as (
  update makeit3d.providers v set state = 'half_open', probe_job = t.id, probe_attempt = t.attempt, updated_at = now()
  from taken t, picked p, makeit3d.pools l
  where t.id = any(p.probes) and l.name = t.pool and v.name = l.provider
), {begin_outputs}, event as (
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'asset_update', o.user_id, o.task_id,
    makeit3d.asset_event(o.task_id, o.id, o.table_name, 'processing', null, null)
  from output o where o.status = 'pending'
), begun as (
  select makeit3d.begin_work(array_agg(t.request_id), array_agg(t.task_id)) from taken t having count(*) > 0
), outputs as (
  select o.job_id, jsonb_agg(jsonb_build_object('id', o.id, 'kind', o.kind, 'number', o.number, 'prompt', o.prompt)
    order by o.number) as outputs
  from output o group by o.job_id
)
select p.waiting, p.locked, p.spare, p.picked, t.*, outputs.outputs, extract(epoch from now() - t.created_at)::float8
  as age_seconds, extract(epoch from t.deadline - now())::float8 as time_left_seconds, (select count(*) from begun)
from picked p left join taken t on true left join outputs on outputs.job_id = t.id
order by array_position(p.picked, t.id);
