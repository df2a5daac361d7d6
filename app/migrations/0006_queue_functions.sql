-- What the statements of the queue have in common, spelled once.

-- Counts by name: {"concept": 2} and {"concept": 1, "model": 1} make {"concept": 3, "model": 1}.
create function makeit3d.add_counts(a jsonb, b jsonb) returns jsonb language sql immutable as $$
  select coalesce(jsonb_object_agg(key, total), '{}') from (
    select key, sum(value::bigint) as total from (
      select * from jsonb_each_text(a) union all select * from jsonb_each_text(b)) as each group by key) as summed
$$;

-- One of so many equal parts; the last one has what does not divide.
create function makeit3d.share(whole bigint, part integer, parts integer) returns bigint language sql immutable as $$
  select whole / parts + case when part = parts - 1 then whole % parts else 0 end
$$;

-- Slots of a pool that are taken: by running jobs whose last call is not yet accepted, and by open calls, each once. A
-- job that gave its slot back holds none; one that waits to have it again counts as well, so that no queued job passes
-- it, unless the caller asks for those that hold one.
create function makeit3d.slots_used(pool text, waiting_in_line boolean default true) returns bigint
language sql stable as $$
  select (
    select count(*) from makeit3d.jobs r where r.pool = slots_used.pool and r.status = 'running' and not r.calls_done
      and (r.slot = 'held' or (r.slot = 'wanted' and slots_used.waiting_in_line))
      and not exists (select from makeit3d.provider_calls c where c.job_id = r.id and c.is_open)
  ) + (
    select count(*) from makeit3d.provider_calls c where c.pool = slots_used.pool and c.is_open
  )
$$;

-- How much of a provider's new work may be claimed: all of it, one job as the probe, or nothing.
create function makeit3d.admission(provider text) returns text language sql volatile as $$
  select coalesce((
    select case
      when v.state = 'closed' then 'allow'
      when v.state = 'open' and v.probe_at > clock_timestamp() then 'reject'
      when v.state = 'half_open' and exists (select from makeit3d.jobs q
        where q.id = v.probe_job and q.status = 'running' and q.attempt = v.probe_attempt) then 'reject'
      else 'probe' end
    from makeit3d.providers v where v.name = admission.provider), 'allow')
$$;

-- Whether a new job of a pool could run now: a slot is free, and the provider takes work.
create function makeit3d.has_room(of_pool text) returns boolean language plpgsql volatile as $$
begin
  return exists (
    select from makeit3d.pools p
    where p.name = of_pool and makeit3d.slots_used(p.name) < coalesce(p.slots, 2147483647)
      and makeit3d.admission(p.provider) <> 'reject');
end $$;

-- Why a queued job does not run: the one derivation, of what its row stores, whether it goes on with paid work, whether
-- its provider's breaker is not closed, and whether its pool has no free slot. Only what is paid needs neither breaker
-- nor slot. An expression: whoever asks evaluates full_up only where nothing else holds the job.
create function makeit3d.wait_reason(stored text, resume boolean, held boolean, full_up boolean) returns text
language sql immutable as $$
  select case
    when stored in ('step', 'dependency', 'user_limit') then stored
    when held and not resume then 'breaker'
    when stored is not null then stored
    when not resume and full_up then 'slot'
    else 'worker' end
$$;

-- What a job waits for: null unless it is queued; with the error, for which a breaker may stand in, and the time to the
-- provider's next probe. The offset keeps the reason from being derived twice.
create function makeit3d.wait_of(j makeit3d.jobs)
returns table (reason text, error_code text, probe_seconds double precision) language sql stable rows 1 as $$
  select derived.reason,
    case when derived.reason = 'breaker' then coalesce(j.error_code, v.error_code) else j.error_code end,
    case when v.state = 'open' then extract(epoch from v.probe_at - now())::float8 end
  from makeit3d.pools p left join makeit3d.providers v on v.name = p.provider and v.state <> 'closed'
  cross join lateral (select case when j.status = 'queued' then makeit3d.wait_reason(j.waiting_for, j.resume,
    v.name is not null, makeit3d.slots_used(j.pool) >= p.slots) end as reason offset 0) as derived
  where p.name = j.pool
$$;

-- A job, as a status document is made of it.
create function makeit3d.told_job(j makeit3d.jobs, waiting_for text, error_code text, probe_seconds double precision)
returns json language sql stable as $$
  select json_build_object('id', j.id, 'step', j.step, 'chunk', j.chunk, 'type', j.type, 'status', j.status,
    'pool', j.pool, 'progress', j.progress, 'items_done', j.items_done, 'items_total', j.items_total,
    'waiting_for', waiting_for, 'error_code', error_code, 'probe_seconds', probe_seconds,
    'error_message', j.error_message, 'cost_micros', j.cost_micros, 'provider_task_id', j.output->>'provider_task_id')
$$;

-- Which lanes, pools and job types have a claimable job: hops from head to head of the index, whatever waits behind.
create function makeit3d.claimable_heads() returns table (lane text, pool text, type text)
language sql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  with recursive head as (
    (select j.lane, j.pool, j.type from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and not j.resume
      order by j.lane, j.pool, j.type, j.priority desc, j.fair_tag, j.id limit 1)
    union all
    select n.lane, n.pool, n.type from head h cross join lateral (
      select j.lane, j.pool, j.type from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and not j.resume
        and (j.lane, j.pool, j.type) > (h.lane, h.pool, h.type)
      order by j.lane, j.pool, j.type, j.priority desc, j.fair_tag, j.id limit 1) as n
  )
  select * from head
$$;

-- How many permits of a class of a user are held: by jobs, counted up to a limit, and by open calls of jobs that ended
-- without them; only paid work makes calls. The order leaves the planner one index, where that of all jobs of the user
-- would be read whole for a class that has none.
create function makeit3d.permits_held(of_user uuid, of_permit text, most bigint) returns bigint
language plpgsql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
begin
  return (
    select count(*) from (
      select from makeit3d.jobs j
      where j.user_id = of_user and j.permit = of_permit and j.status in ('queued', 'running')
        and (j.waiting_for is null or j.waiting_for in ('retry', 'breaker'))
      order by j.id limit most) as holding
  ) + case when of_permit = 'paid' then (
    -- call by call: joined, all unfinished jobs might be read
    select count(*) from makeit3d.provider_calls c where c.user_id = of_user and c.is_open and not coalesce((
      select j.status in ('queued', 'running') from makeit3d.jobs j where j.id = c.job_id), false)
  ) else 0 end;
end $$;

-- Jobs of a user that wait for a permit of a class and may have one, locked: the most urgent, then the oldest. Its order
-- leaves the planner one index, too.
create function makeit3d.next_with_permit(of_user uuid, of_permit text, most bigint)
returns table (id uuid, user_id uuid, lane text, pool text, priority smallint)
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
#variable_conflict use_column
begin
  return query select j.id, j.user_id, j.lane, j.pool, j.priority from makeit3d.jobs j
  where j.user_id = of_user and j.permit = of_permit and j.status = 'queued' and j.waiting_for = 'user_limit'
  order by j.priority desc, j.created_at, j.id
  limit greatest(0, most - makeit3d.permits_held(of_user, of_permit, most))
  for no key update skip locked;
end $$;

-- How many unfinished jobs a user has, counted up to a limit, by one index in the same way.
create function makeit3d.unfinished_jobs(of_user uuid, most bigint) returns bigint
language sql stable set enable_seqscan = off set enable_bitmapscan = off as $$
  select count(*) from (
    select from makeit3d.jobs j where j.user_id = of_user and j.status in ('queued', 'running') limit most) as unfinished
$$;

-- The lowest fair tag that waits in a lane and pool with a priority, by one hop for each job type.
create function makeit3d.lowest_tag(of_lane text, of_pool text, of_priority smallint) returns bigint
language sql stable set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
  with recursive kind as (
    (select j.type from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = of_lane and j.pool = of_pool
      order by j.type, j.priority desc, j.fair_tag, j.id limit 1)
    union all
    select n.type from kind k cross join lateral (
      select j.type from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = of_lane and j.pool = of_pool
        and j.type > k.type
      order by j.type, j.priority desc, j.fair_tag, j.id limit 1) as n
  )
  select min(head.fair_tag) from kind k cross join lateral (
    select j.fair_tag from makeit3d.jobs j
    where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = of_lane and j.pool = of_pool
      and j.type = k.type and j.priority = of_priority
    order by j.fair_tag, j.id limit 1) as head
$$;

-- Whether a queued job may no longer begin: its request was to be started by a time, and no job of it was. Null where
-- there is no such time.
create function makeit3d.is_late(j makeit3d.jobs) returns boolean language sql stable as $$
  select j.attempt = 0 and j.expires_at <= now() and not exists (
    select from makeit3d.jobs o where o.request_id = j.request_id and o.attempt > 0)
$$;

-- Picks the jobs of one claim and locks them, with their tasks, until the transaction ends; it never waits for a job
-- or a task, and takes what another transaction holds for absent. The pools are locked before slots are counted, so that
-- two claims never count the same free slot. It is a function because each of its statements must see what was committed before the
-- locks that the one before it took.
--   fresh    those that need a slot; the others go on with paid work
--   probes   fresh ones that show whether their provider is well again
--   waiting  there was something to claim; spare: how many more it had room for
--   locked   something is left that this claim had room for: another transaction holds it, or it is to run alone
create function makeit3d.pick_jobs(lanes text[], types text[], host text, most integer,
  out picked uuid[], out fresh uuid[], out probes uuid[], out waiting boolean, out locked boolean, out spare integer)
language plpgsql volatile set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan as $$ -- to plan its statements anew takes longer than to run them
#variable_conflict use_column
declare
  head_lanes text[];
  head_pools text[];
  resume_lanes text[];
  resumed uuid[] := '{}';
  resumed_pools text[] := '{}';
  unpaid uuid[] := '{}';
  pool_names text[];
  pool_providers text[];
  rooms bigint[];
  admissions text[];
  pair record;
  job record;
  i integer;
  other integer;
  wanted bigint;
  seen integer;
begin
  picked := '{}';
  fresh := '{}';
  probes := '{}';
  locked := false;
  spare := greatest(most, 0);
  select array_agg(h.lane), array_agg(h.pool) into head_lanes, head_pools
  from makeit3d.claimable_heads() h join makeit3d.pools p on p.name = h.pool
  where h.lane = any(lanes) and h.type = any(types) and makeit3d.admission(p.provider) <> 'reject';
  resume_lanes := array(
    select lane.name from unnest(lanes) with ordinality as lane(name, rank) cross join lateral (
      select from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = lane.name and j.type = any(types)
        and (j.kept_host is null or j.kept_host = host or j.kept_until < now())
      order by j.priority desc, j.fair_tag, j.id limit 1) as head
    order by lane.rank);
  waiting := head_lanes is not null or resume_lanes <> '{}';
  if not waiting or most <= 0 then
    return;
  end if;

  for pair in select unnest(resume_lanes) as lane loop
    for job in
      select j.id, j.pool from makeit3d.jobs j join makeit3d.tasks t on t.id = j.task_id
      where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = pair.lane and j.type = any(types)
        and (j.kept_host is null or j.kept_host = host or j.kept_until < now())
      order by j.priority desc, j.fair_tag, j.id
      limit most - cardinality(resumed) for no key update of j, t skip locked
    loop
      resumed := resumed || job.id;
      resumed_pools := resumed_pools || job.pool;
    end loop;
  end loop;

  perform from makeit3d.pools p where p.name = any(head_pools || resumed_pools) order by p.name for no key update;
  -- slots before admission: who sees the slot that a refusal gave back also sees the breaker that it opened before
  select array_agg(p.name), array_agg(p.provider),
    array_agg(coalesce(p.slots, 2147483647) - makeit3d.slots_used(p.name)) into pool_names, pool_providers, rooms
  from makeit3d.pools p where p.name = any(head_pools || resumed_pools);
  -- one that does not allow everything stays locked until the claim commits: one job is the probe
  perform from makeit3d.providers v where v.name = any(pool_providers) and v.state <> 'closed'
  order by v.name for no key update;
  admissions := array(
    select makeit3d.admission(one.name) from unnest(pool_providers) with ordinality as one(name, rank)
    order by one.rank);

  -- a call that was refused meanwhile gave its slot back, and its job needs a new one
  if resumed <> '{}' then
    unpaid := array(
      select j.id from makeit3d.jobs j where j.id = any(resumed) and not j.calls_done and not exists (
        select from makeit3d.provider_calls c where c.job_id = j.id and c.is_open));
    if unpaid <> '{}' then
      update makeit3d.jobs j set resume = false, seconds_left = null where j.id = any(unpaid);
    end if;
    for job in
      select j.id, j.alone from unnest(resumed) with ordinality as one(id, rank) join makeit3d.jobs j on j.id = one.id
      where j.id <> all(unpaid) order by one.rank
    loop
      continue when job.alone and picked <> '{}';
      picked := picked || job.id;
      spare := spare - 1;
      if job.alone then
        spare := 0;
        exit;
      end if;
    end loop;
  end if;
  if resume_lanes <> '{}' and spare > 0 then
    locked := unpaid <> '{}' or exists (
      select from makeit3d.jobs j
      where j.status = 'queued' and j.waiting_for is null and j.resume and j.lane = any(resume_lanes)
        and j.type = any(types) and (j.kept_host is null or j.kept_host = host or j.kept_until < now())
        and j.id <> all(picked));
  end if;

  for pair in
    -- in no order of pools, or a process with few slots of its own would serve the first one alone
    select h.lane, h.pool, array_agg(h.type) as types
    from makeit3d.claimable_heads() h join unnest(lanes) with ordinality as lane(name, rank) on lane.name = h.lane
    where h.pool = any(pool_names) and h.type = any(types) group by h.lane, h.pool, lane.rank order by lane.rank, random()
  loop
    exit when spare <= 0;
    i := array_position(pool_names, pair.pool);
    continue when admissions[i] = 'reject';
    wanted := least(rooms[i], spare, case admissions[i] when 'probe' then 1 else spare end);
    continue when wanted <= 0;
    seen := 0;
    for job in
      select one.id, one.alone from unnest(pair.types) as handled(type) cross join lateral (
        select j.id, j.alone, j.priority, j.fair_tag from makeit3d.jobs j join makeit3d.tasks t on t.id = j.task_id
        where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = pair.lane
          and j.pool = pair.pool and j.type = handled.type and j.id <> all(unpaid)
          and (j.expires_at is null or not makeit3d.is_late(j))
        order by j.priority desc, j.fair_tag, j.id limit wanted for no key update of j, t skip locked) as one
      order by one.priority desc, one.fair_tag, one.id limit wanted
    loop
      seen := seen + 1;
      -- who runs alone is claimed alone: it comes first and closes the batch, or waits for a claim of its own
      continue when job.alone and picked <> '{}';
      exit when spare <= 0;
      picked := picked || job.id;
      fresh := fresh || job.id;
      rooms[i] := rooms[i] - 1;
      spare := spare - 1;
      if admissions[i] = 'probe' then
        probes := probes || job.id;
        for other in 1 .. cardinality(pool_names) loop
          if pool_providers[other] = pool_providers[i] then
            admissions[other] := 'reject';
          end if;
        end loop;
      end if;
      if job.alone then
        spare := 0;
      end if;
    end loop;
    if seen < wanted and not locked then
      locked := exists (
        select from unnest(pair.types) as handled(type) cross join lateral (
          select from makeit3d.jobs j
          where j.status = 'queued' and j.waiting_for is null and not j.resume and j.lane = pair.lane
            and j.pool = pair.pool and j.type = handled.type and j.id <> all(picked)
            and (j.expires_at is null or not makeit3d.is_late(j))
          order by j.priority desc, j.fair_tag, j.id limit 1) as left_over);
    end if;
  end loop;
end $$;

-- What readers are told of a task.
create function makeit3d.task_event(task_id text, status text) returns jsonb language sql stable as $$
  select jsonb_build_object('task_id', task_id, 'status', status)
$$;

-- Requests and tasks of jobs that were just claimed are running.
create function makeit3d.begin_work(request_ids uuid[], task_ids text[]) returns void language sql volatile as $$
  update makeit3d.requests r set status = 'running' where r.id = any(request_ids) and r.status = 'queued';
  with begun as (
    update makeit3d.tasks t set status = 'running', updated_at = now()
    where t.id = any(task_ids) and t.status = 'queued' returning t.id, t.user_id, t.status
  )
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'task_update', b.user_id, b.id, makeit3d.task_event(b.id, b.status) from begun b
$$;

-- Paid work of the job is under way or done: to go on with it needs no slot.
create function makeit3d.holds_paid_work(job_id uuid, calls_done boolean) returns boolean language sql stable as $$
  select holds_paid_work.calls_done or exists (
    select from makeit3d.provider_calls c where c.job_id = holds_paid_work.job_id and c.is_open)
$$;

-- A job that was parked until the deadline of its intent, because its worker seemed dead: it goes on with the answer.
create function makeit3d.is_parked(j makeit3d.jobs) returns boolean language sql immutable as $$
  select j.status = 'queued' and j.waiting_for = 'retry' and j.error_code is null
$$;

-- What the journal's changes of a call do to its job. Nobody's status changes.

-- The provider took the call, refused it, or nobody knows; after the last one the job takes no further slot.
create function makeit3d.call_answered(of_job uuid, last boolean default false) returns void language plpgsql as $$
begin
  update makeit3d.jobs j set calls_done = j.calls_done or last,
    waiting_for = case when makeit3d.is_parked(j) then null else j.waiting_for end,
    run_after = case when makeit3d.is_parked(j) then null else j.run_after end
  where j.id = of_job and ((last and not j.calls_done) or makeit3d.is_parked(j));
end $$;

-- The call was never sent: a job that was to go on with it waits for a slot like any other. Its lane.
create function makeit3d.call_never_left(of_job uuid) returns setof text language plpgsql as $$
begin
  return query update makeit3d.jobs j set waiting_for = null, run_after = null, resume = j.calls_done,
    seconds_left = case when j.calls_done then j.seconds_left end
  where j.id = of_job and j.status = 'queued' and j.resume returning j.lane;
end $$;

-- Costs are added here and nowhere else: a sum made by whoever ends the job may miss what is recorded meanwhile.
create function makeit3d.call_settled(of_job uuid, cost bigint, ends_paid_work boolean) returns void
language plpgsql as $$
begin
  update makeit3d.jobs j set calls_done = j.calls_done or ends_paid_work, cost_micros = j.cost_micros + cost
  where j.id = of_job;
end $$;

create function makeit3d.calls_progressed(job_ids uuid[], of_calls smallint[]) returns void language plpgsql as $$
begin
  update makeit3d.jobs j set progress = p.progress from unnest(job_ids, of_calls) as p(job_id, progress)
  where j.id = p.job_id and j.status = 'running' and j.progress < p.progress;
end $$;

-- A job that a transition changed, for whoever has to do with it.
create function makeit3d.changed(j makeit3d.jobs, old text) returns jsonb language sql stable as $$
  select jsonb_build_object('job_id', j.id, 'task_id', j.task_id, 'request_id', j.request_id, 'user_id', j.user_id,
    'type', j.type, 'old', old, 'new', j.status, 'attempt', j.attempt, 'started_at', j.started_at,
    'finished_at', j.finished_at, 'error_code', j.error_code, 'error_message', j.error_message, 'usage', j.usage,
    'price', j.price, 'participants', j.participants, 'step', j.step, 'has_next', j.has_next, 'permit', j.permit,
    'lane', j.lane, 'pool', j.pool, 'waiting_for', j.waiting_for, 'trace_id', j.trace_id)
$$;

-- What readers are told of a job. While a job is free to run, or runs, errors of earlier attempts do not count.
create function makeit3d.job_event(task_id text, job_id uuid, request_id uuid, type text, step smallint, status text,
  progress smallint, waiting_for text, error_code text) returns jsonb language sql stable as $$
  select jsonb_build_object('task_id', task_id, 'job_id', job_id, 'request_id', request_id, 'type', type,
    'step', step, 'status', status, 'progress', progress, 'waiting_for', waiting_for, 'error_code',
    case when status = 'running' or (status = 'queued' and waiting_for is null) then null else error_code end)
$$;

-- What readers are told of a row of assets.
create function makeit3d.asset_event(task_id text, asset_id uuid, table_name text, status text, asset_url text,
  error_code text) returns jsonb language sql stable as $$
  select jsonb_build_object('task_id', task_id, 'asset_id', asset_id, 'table', table_name, 'status', status,
    'asset_url', asset_url, 'error_code', error_code)
$$;

-- What readers are told of an item of a job.
create function makeit3d.item_event(task_id text, job_id uuid, key text, status text, error_code text, output jsonb)
returns jsonb language sql stable as $$
  select jsonb_build_object('task_id', task_id, 'job_id', job_id, 'key', key, 'status', status,
    'error_code', error_code, 'output', output)
$$;

-- Whatever changes a job that readers see tells them of it, in the same statement: no path can forget to.
create function makeit3d.tell_of_jobs() returns trigger language plpgsql as $$
begin
  insert into makeit3d.events (type, user_id, task_id, payload)
  select 'job_update', n.user_id, n.task_id, makeit3d.job_event(n.task_id, n.id, n.request_id, n.type, n.step,
    n.status, n.progress, n.waiting_for, n.error_code)
  from after n join before o on o.id = n.id
  where (n.status, n.waiting_for, n.progress) is distinct from (o.status, o.waiting_for, o.progress);
  return null;
end $$;
create trigger jobs_are_told after update on makeit3d.jobs referencing old table as before new table as after
  for each statement execute function makeit3d.tell_of_jobs();
