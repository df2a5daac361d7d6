"""Checks in SQL, and running them over one snapshot. Nothing here writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache

import asyncpg

from app.db.pool import Connection, Database
from app.db.sql import Statement, load
from app.domain.audit import Area, Difference, Findings, Invariant
from app.errors import STORAGE_REFUSALS

_SQL = load(__file__)
_FRAME = _SQL["check_frame"]
_REFUSALS = [error.code for error in STORAGE_REFUSALS]

_SHOWN = 200  # differences of one check that are listed; the rest is counted
_PATIENCE = 310  # seconds for an answer: the server ends a statement before


@dataclass(frozen=True, slots=True)
class AuditCheck:
    """``sql`` selects one row per difference: ``ids`` (jsonb of text) and ``found`` (text). It may read what
    ``checks.sql`` puts before it, above all ``asset``: the outputs of jobs, of every kind."""

    invariant: Invariant
    sql: str


def check_of(statement: Statement, area: Area, remedy: str, *, passing: bool = False) -> AuditCheck:
    """A named statement is a check: its description is the rule."""
    return AuditCheck(Invariant(statement.name, area, statement.description, remedy, passing), statement.text)


@dataclass(frozen=True, slots=True)
class Patience:
    """What is not yet a difference; times in seconds."""

    worker_ttl: float  # a process that was seen so lately lives
    leftovers: float  # an ended job's unfinished upload may stay so long
    unowned: float  # a client's unfinished upload may stay so long
    unknowns: float  # past its deadline, a call may be looked for so long
    longest_wait: float  # an outage may keep a job waiting so long
    places: int | None  # jobs that a user may have in flight


@asynccontextmanager
async def snapshot(database: Database) -> AsyncGenerator[Connection]:
    """One moment of the database, read only, for as long as the body takes."""
    async with database.snapshot() as connection:
        await connection.execute(_SQL["bound_audit_statements"])
        await connection.execute(_SQL["bound_audit_pauses"])
        yield connection


async def run(connection: Connection, checks: Sequence[AuditCheck], patience: Patience, *, rows: int = 0) -> Findings:
    """The differences that the checks find in the connection's snapshot."""
    findings = Findings(rows=rows)
    for check in checks:
        findings.checks.append(check.invariant)
        found = await connection.fetch(
            _framed(check), **asdict(patience), refusals=_REFUSALS, most=_SHOWN, timeout=_PATIENCE
        )
        findings.differences += [_difference(check.invariant, row) for row in found]
        findings.unshown += (found[0]["total"] - len(found)) if found else 0
    return findings


async def count_rows(connection: Connection) -> int:
    """How many rows there are to look at."""
    return int(await connection.fetchval(_SQL["count_rows"], timeout=_PATIENCE))


@cache
def _framed(check: AuditCheck) -> Statement:
    return replace(_FRAME, name=check.invariant.name, text=_FRAME.text.replace("{check}", check.sql))


def _difference(invariant: Invariant, row: asyncpg.Record) -> Difference:
    ids = {name: "-" if value is None else str(value) for name, value in row["ids"].items()}
    return Difference(invariant, ids, row["found"])
