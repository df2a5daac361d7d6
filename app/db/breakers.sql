-- name: breakers
-- The breaker of every provider that is paid.
select name as provider, state, failures, trips, error_code,
  extract(epoch from now() - opened_at)::float8 as open_seconds,
  case when state = 'open' then extract(epoch from probe_at - now())::float8 end as probe_seconds
from makeit3d.providers where name in (select provider from makeit3d.pools) and name <> 'local' order by name

-- name: count_failure
-- A failure of the provider opens the breaker at once or by number; in half_open only the probe's own counts.
with before as (
  select name, case state
      when 'closed' then :at_once::boolean or failures + 1 >= :threshold::integer
      when 'half_open' then probe_job is not distinct from :job_id::uuid
      else false end as opens
  from makeit3d.providers where name = :provider for no key update
)
update makeit3d.providers p set
  failures = p.failures + 1,
  state = case when b.opens then 'open' else p.state end,
  trips = p.trips + b.opens::integer,
  error_code = case when b.opens then :error_code::text else p.error_code end,
  opened_at = case when b.opens then coalesce(p.opened_at, now()) else p.opened_at end,
  tripped_at = case when b.opens then now() else p.tripped_at end,
  probe_at = case when b.opens
    then now() + make_interval(secs => least(:longest_seconds::float8, :cool_down_seconds::float8 * 2 ^ least(p.trips, 30)))
    else p.probe_at end,
  probe_job = case when b.opens then null else p.probe_job end,
  updated_at = now()
from before b where p.name = b.name
returning p.state, b.opens

-- name: close_breaker
-- All is well: after a call that was sent since the breaker opened, or by hand (no call). Writes nothing where it is so.
with before as (
  select name, state from makeit3d.providers where name = :provider and (failures > 0 or state <> 'closed')
    and (state = 'closed' or :call_id::uuid is null or exists (select from makeit3d.provider_calls c
      where c.id = :call_id and c.created_at >= tripped_at))
  for no key update
)
update makeit3d.providers p set state = 'closed', failures = 0, trips = 0, error_code = null, opened_at = null,
  tripped_at = null, probe_at = null, probe_job = null, probe_attempt = null, updated_at = now()
from before b where p.name = b.name returning b.state

-- name: postpone_probe
-- The probe was told to come again later: that is no verdict.
update makeit3d.providers set state = 'open', probe_at = now() + make_interval(secs => :seconds), probe_job = null,
  updated_at = now()
where name = :provider and state = 'half_open' and probe_job = :job_id

-- name: next_probe_seconds
-- How long until a breaker may be probed next; null when no such moment is to come.
select extract(epoch from min(probe_at) - clock_timestamp())::float8 from makeit3d.providers
where state = 'open' and probe_at > clock_timestamp()
