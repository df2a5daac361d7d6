-- name: server
-- What the server is, and what time it has.
select current_setting('server_version') as version, current_setting('server_version_num')::integer as version_number,
  pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as read_only,
  current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
    as max_connections,
  extract(epoch from clock_timestamp())::float8 as clock

-- name: is_migrated
-- Whether our tables are there; a role without USAGE on the schema may ask, too.
select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'makeit3d' and c.relname = 'jobs')

-- name: history_is_hidden
-- Whether row-level security hides the history of migrations from this role.
select row_security_active('makeit3d.migrations')

-- name: columns_of
-- Type by column of a table in schema public.
select a.attname as name, format_type(a.atttypid, null) as type from pg_attribute a
where a.attrelid = to_regclass(format('public.%I', :table::text)) and a.attnum > 0 and not a.attisdropped

-- name: rights
-- Who may do what with our tables, internal ones and those of assets.
select c.relname as name, c.relrowsecurity as row_security, row_security_active(c.oid) as hidden_rows,
  has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, 'select')
    and has_table_privilege(c.oid, 'insert') and has_table_privilege(c.oid, 'update')
    and has_table_privilege(c.oid, 'delete') as ours,
  coalesce((select bool_or(has_table_privilege(r.oid, c.oid, 'select')) from pg_roles r
    where r.rolname = 'authenticated'), true) as users_read,
  coalesce((select string_agg(distinct p.name, ' ' order by p.name) from pg_roles r,
    unnest(array['insert', 'update', 'delete', 'truncate']) as p(name)
    where r.rolname in ('anon', 'authenticated') and has_table_privilege(r.oid, c.oid, p.name)), '') as browsers_write,
  coalesce((select bool_or(has_table_privilege(r.oid, c.oid, 'select')) from pg_roles r
    where r.rolname in ('anon', 'authenticated')), false) as browsers_read
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where (n.nspname = 'makeit3d' and c.relname = any(:internal)) or (n.nspname = 'public' and c.relname = any(:assets))
order by c.relname

-- name: has_publication
-- Whether Realtime is there at all.
select exists (select from pg_publication where pubname = 'supabase_realtime')

-- name: unpublished
-- Which of these tables Realtime does not publish.
select n as name from unnest(:tables::text[]) as n
where to_regclass(format('public.%I', n)) is not null
  and not exists (select from pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = n)
order by n

-- name: lanes_served
-- Live workers by lane that still take work.
select l.name, count(w.id) as alive from unnest(:lanes::text[]) as l(name)
left join makeit3d.workers w on l.name = any(w.lanes) and not w.stopping
  and w.seen_at > now() - make_interval(secs => :ttl_seconds)
group by l.name order by l.name

-- name: job_types_unserved
-- Queued jobs by type, of types that no live worker handles. A worker of an older version does not say what it handles.
with live as (
  select job_types from makeit3d.workers where not stopping and seen_at > now() - make_interval(secs => :ttl_seconds)
)
select j.type, count(*) as jobs from makeit3d.jobs j
where j.status = 'queued' and exists (select from live)
  and not exists (select from live where j.type = any(live.job_types) or live.job_types = '{}')
group by j.type order by j.type

-- name: workers_of_other_versions
-- Live workers that run other code.
select name, version from makeit3d.workers
where version <> :version and not stopping and seen_at > now() - make_interval(secs => :ttl_seconds) order by name

-- name: live_workers
-- How many workers live.
select count(*) from makeit3d.workers where seen_at > now() - make_interval(secs => :ttl_seconds)

-- name: slots_of_pools
-- Slots by pool, as the last process to start wrote them.
select name, slots from makeit3d.pools

-- name: has_links
-- Whether some of the finished results have a link that begins like this.
select exists (
  select from (
-- each table union all
    (select asset_url from {table} where status = 'complete' limit 1000)
-- end
  ) as r where starts_with(r.asset_url, :prefix))

-- name: notify_doctor
-- What a listener on the other address is to hear.
select pg_notify(:channel, '')
