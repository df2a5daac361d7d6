-- name: ensure_providers
-- Every provider of a configured pool has a row for its circuit breaker.
insert into makeit3d.providers (name) select distinct unnest(:names::text[]) on conflict do nothing

-- name: ensure_pools
-- Write the configured pools; existing ones get the new number of slots.
insert into makeit3d.pools (name, provider, slots)
select * from unnest(:names::text[], :providers::text[], :slots::integer[])
on conflict (name) do update set slots = excluded.slots, provider = excluded.provider, updated_at = now()
where (pools.slots, pools.provider) is distinct from (excluded.slots, excluded.provider)
