-- name: has_schema
-- Whether our schema is there; a role without USAGE on it may ask, too.
select exists (select from pg_namespace where nspname = 'makeit3d')

-- name: has_history
-- Whether our migration history is there; a role without USAGE on the schema may ask, too.
select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'makeit3d' and c.relname = 'migrations')

-- name: applied_migrations
-- What was applied, oldest first.
select version, name, checksum from makeit3d.migrations order by version

-- name: lock_migrations
-- One runner at a time; the key is "make" in ASCII.
select pg_advisory_lock(1835101029)

-- name: bound_lock_waits
-- A migration that waits for a lock keeps everybody else waiting behind it.
set local lock_timeout = '5s'

-- name: make_schema
-- Only where it is missing: "if not exists" would ask for the right to make schemas where ours is there already.
create schema makeit3d

-- name: make_history
-- The checksum is the sha256 of the file as it was applied.
create table makeit3d.migrations (
  version text primary key,
  name text not null,
  checksum text not null,
  applied_at timestamptz not null default now()
)

-- name: record_migration
-- The file was applied.
insert into makeit3d.migrations (version, name, checksum) values (:version, :name, :checksum)
