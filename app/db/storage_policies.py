"""Policies on ``storage.objects``, by which signed-in users may use their own folder of an input bucket.

Only the owner of the table can make them, and on some projects that is not who migrates.
"""

from __future__ import annotations

from collections.abc import Sequence

from asyncpg import Record

# A policy that names no bucket is for all of them. The catalogue tells it to everybody.
MISSING = """
select b.name as bucket, c.name as command
from unnest($1::text[]) with ordinality as b(name, place),
  unnest(array['select', 'insert', 'update', 'delete']) with ordinality as c(name, place)
where exists (select from pg_class k join pg_namespace n on n.oid = k.relnamespace
    where n.nspname = 'storage' and k.relname = 'objects')
  and not exists (select from pg_policies p
    where p.schemaname = 'storage' and p.tablename = 'objects' and lower(p.cmd) in (c.name, 'all')
      and p.roles && array['authenticated', 'public']::name[]
      and (position(quote_literal(b.name) in concat(p.qual, p.with_check)) > 0
        or position('bucket_id' in concat(p.qual, p.with_check)) = 0))
order by b.place, c.place
"""


def statements(missing: Sequence[Record]) -> list[str]:
    """SQL that makes what ``MISSING`` found, for the dashboard's SQL editor."""
    return [_statement(row["bucket"], row["command"]) for row in missing]


def _statement(bucket: str, command: str) -> str:
    literal = bucket.replace("'", "''")
    own = f"(bucket_id = '{literal}' and (storage.foldername(name))[1] = (select auth.uid())::text)"
    clauses = {
        "select": f"using {own}",
        "insert": f"with check {own}",
        "update": f"using {own}\n  with check {own}",
        "delete": f"using {own}",
    }
    name = f"own {command} in {bucket}"[:63].replace('"', '""')
    return f'create policy "{name}" on storage.objects for {command} to authenticated\n  {clauses[command]};'
