-- name: missing_policies
-- SQL of each policy that an input bucket lacks, as text: only the owner of the table can make them. A policy that names
-- no bucket is for all of them. The catalogue tells it to everybody.
select b.name as bucket, c.name as command,
  format(E'create policy %I on storage.objects for %s to authenticated\n  %s;',
    left(format('own %s in %s', c.name, b.name), 63), c.name,
    concat_ws(E'\n  ',
      case when c.name <> 'insert' then 'using ' || own.clause end,
      case when c.name in ('insert', 'update') then 'with check ' || own.clause end)) as statement
from unnest(:buckets::text[]) with ordinality as b(name, place),
  unnest(array['select', 'insert', 'update', 'delete']) with ordinality as c(name, place),
  format('(bucket_id = %L and (storage.foldername(name))[1] = (select auth.uid())::text)', b.name) as own(clause)
where exists (select from pg_class k join pg_namespace n on n.oid = k.relnamespace
    where n.nspname = 'storage' and k.relname = 'objects')
  and not exists (select from pg_policies p
    where p.schemaname = 'storage' and p.tablename = 'objects' and lower(p.cmd) in (c.name, 'all')
      and p.roles && array['authenticated', 'public']::name[]
      and (position(quote_literal(b.name) in concat(p.qual, p.with_check)) > 0
        or position('bucket_id' in concat(p.qual, p.with_check)) = 0))
order by b.place, c.place
