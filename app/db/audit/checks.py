"""Checks in SQL, and running them over one snapshot. Nothing here writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from app.db.pool import AssetTables, Connection, Database
from app.domain.audit import Difference, Findings, Invariant

# of ``jobs j``: its work is a provider's; a job of the local pool pays nobody
IS_PAID = "coalesce(j.provider, 'local') <> 'local'"

_SHOWN = 200  # differences of one check that are listed; the rest is counted
_STATEMENT_SECONDS = 300
_PATIENCE = _STATEMENT_SECONDS + 10  # seconds for an answer


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """``sql`` selects one row per difference: ``ids`` (jsonb of text) and ``found`` (text). It may read ``asset``: the
    rows of both output tables."""

    invariant: Invariant
    sql: str


@dataclass(frozen=True, slots=True)
class Patience:
    """What is not yet a difference; times in seconds."""

    worker_ttl: float  # a process that was seen so lately lives
    leftovers: float  # an ended job's unfinished upload may stay so long
    unowned: float  # a client's unfinished upload may stay so long
    unknowns: float  # past its deadline, a call may be looked for so long
    longest_wait: float  # an outage may keep a job waiting so long
    places: int | None  # jobs that a user may have in flight


_FRAME = """
with patience as (
  select make_interval(secs => $1) as worker_ttl, make_interval(secs => $2) as leftovers,
    make_interval(secs => $3) as unowned, make_interval(secs => $4) as unknowns,
    make_interval(secs => $5) as longest_wait, $6::bigint as places
), asset as (
  select id, task_id, user_id, job_id, request_id, 'concept' as kind, number, status, asset_url, file_id, preview_url,
    error_code, 'concept_images' as table_name from {concepts} where job_id is not null
  union all
  select id, task_id, user_id, job_id, request_id, kind, number, status, asset_url, file_id, preview_url, error_code,
    'models' from {models} where job_id is not null
), difference as (
  {sql}
)
select ids, found, count(*) over () as total from difference, patience limit $7
"""


@asynccontextmanager
async def snapshot(database: Database) -> AsyncGenerator[Connection]:
    """One moment of the database, read only, for as long as the body takes."""
    async with database.snapshot() as connection:
        await connection.execute(f"set local statement_timeout = '{_STATEMENT_SECONDS}s'")
        # an audit may take its time: it must not take memory from those who work
        await connection.execute("set local idle_in_transaction_session_timeout = '10min'")
        yield connection


async def run(
    connection: Connection, tables: AssetTables, checks: Sequence[AuditCheck], patience: Patience, *, rows: int = 0
) -> Findings:
    """The differences that the checks find in the connection's snapshot."""
    findings = Findings(rows=rows)
    for check in checks:
        findings.checks.append(check.invariant)
        statement = _FRAME.format(
            sql=check.sql.format(inputs=tables.inputs), concepts=tables.concepts, models=tables.models
        )
        found = await connection.fetch(
            statement,
            patience.worker_ttl,
            patience.leftovers,
            patience.unowned,
            patience.unknowns,
            patience.longest_wait,
            patience.places,
            _SHOWN,
            timeout=_PATIENCE,
        )
        findings.differences += [_difference(check.invariant, row) for row in found]
        findings.unshown += (found[0]["total"] - len(found)) if found else 0
    return findings


async def count_rows(connection: Connection, tables: Sequence[str]) -> int:
    """How many rows the tables have, whose names are ours."""
    counts = " union all ".join(f"select count(*) as n from {table}" for table in tables)  # noqa: S608
    return int(await connection.fetchval(f"select sum(n) from ({counts}) as c", timeout=_PATIENCE))  # noqa: S608


def _difference(invariant: Invariant, row: asyncpg.Record) -> Difference:
    ids = {name: "-" if value is None else str(value) for name, value in row["ids"].items()}
    return Difference(invariant, ids, row["found"])
