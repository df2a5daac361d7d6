"""The audit: every invariant of rows, events, files and money, checked without writing anything.

Rows are looked at in one snapshot. What may be false for a moment (a dead worker's job before the sweep takes it
back) is a difference only when a second look, a while later, still sees it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from app.config import Settings
from app.db.audit import checks, files
from app.db.audit.checks import AuditCheck, Patience
from app.db.audit.claims import CLAIM_CHECKS, kept_results
from app.db.audit.events import EVENT_CHECKS
from app.db.audit.files import FILE_CHECKS, OutputRow
from app.db.audit.statuses import STATUS_CHECKS
from app.db.audit.waits import WAIT_CHECKS
from app.db.pool import Connection, Database
from app.domain.asset_kinds import AssetKinds
from app.domain.audit import Area, Difference, Findings, Invariant
from app.domain.storage_keys import output_key

ROW_CHECKS: tuple[AuditCheck, ...] = (*STATUS_CHECKS, *CLAIM_CHECKS, *WAIT_CHECKS, *FILE_CHECKS, *EVENT_CHECKS)

OUTPUT_KEY = Invariant(
    "output_key",
    Area.ROWS,
    "an output lies under the key of its task, kind and number",
    "the object is misnamed: report it with the job's events",
)

_UNOWNED_SECONDS = 2 * 3600.0  # the sweep takes an hour
_ROUNDS_SECONDS = 120.0  # what a minute's grace and a few sweeps take


async def audit_rows(
    database: Database,
    settings: Settings,
    *,
    more: Sequence[AuditCheck] = (),
    again: Callable[[], Awaitable[None]] | None = None,
) -> Findings:
    """Rows and events against each other, by our own checks and ``more``. ``again`` is awaited before the second look
    at what may pass; without it, one look decides."""
    async with checks.snapshot(database) as connection:
        findings = await look(connection, database, settings, more=more)
    if again is None or not any(item.invariant.passing for item in findings.differences):
        return findings
    await again()
    async with checks.snapshot(database) as connection:
        patience, passing = _patience(settings), [check for check in (*ROW_CHECKS, *more) if check.invariant.passing]
        second = await checks.run(connection, passing, patience)
    lasting = {item.key for item in second.differences}
    findings.differences = [d for d in findings.differences if not d.invariant.passing or d.key in lasting]
    return findings


async def look(
    connection: Connection, database: Database, settings: Settings, *, more: Sequence[AuditCheck] = ()
) -> Findings:
    """Every invariant of rows and events, as the connection's transaction sees them."""
    findings = await checks.run(connection, (*ROW_CHECKS, *more), _patience(settings))
    findings.rows = await checks.count_rows(connection)
    results, hosts = await kept_results(connection)
    if results:
        findings.notes.append(f"{results} paid results that storage refused are kept for a retry ({hosts})")
    findings.checks.append(OUTPUT_KEY)
    async for row in files.outputs(connection):
        if (difference := _misnamed(database.tables.kinds, row)) is not None:
            findings.differences.append(difference)
    return findings


def _patience(settings: Settings) -> Patience:
    return Patience(
        worker_ttl=settings.worker_ttl_seconds,
        leftovers=settings.supabase_timeout_seconds + settings.worker_ttl_seconds,
        unowned=_UNOWNED_SECONDS,
        unknowns=settings.reconcile_window_seconds + _ROUNDS_SECONDS,
        longest_wait=settings.max_wait_seconds + _ROUNDS_SECONDS,
        places=settings.user_max_in_flight,
    )


def _misnamed(kinds: AssetKinds, row: OutputRow) -> Difference | None:
    ids = {"asset": str(row.asset_id), "file": str(row.file_id), "key": row.key}
    try:
        kind = kinds[row.kind]
        wanted = output_key(kind, row.task_id, row.number, kind.extension_of(row.content_type))
    except KeyError:
        return Difference(OUTPUT_KEY, ids, f"there is no kind {row.kind}")
    except ValueError:
        return Difference(OUTPUT_KEY, ids, f"content type {row.content_type} has no place")
    return None if row.key == wanted else Difference(OUTPUT_KEY, ids, f"belongs at {wanted}")
