"""Claims, slots and paid calls: who runs what, and that nothing was paid twice."""

from __future__ import annotations

from app.db.audit.checks import AuditCheck, check_of
from app.db.pool import Connection
from app.db.sql import Statement, load
from app.domain.audit import Area

_SQL = load(__file__)


def _rows(statement: Statement, remedy: str, *, passing: bool = False) -> AuditCheck:
    return check_of(statement, Area.ROWS, remedy, passing=passing)


CLAIM_CHECKS = (
    _rows(
        _SQL["running_is_alive"],
        "the sweep takes such jobs back: see that a worker runs, and its log for sweep_failed",
        passing=True,
    ),
    _rows(
        _SQL["end_is_written"],
        "a worker's log says why, with finish_failed_again and expire_failed: see the runbook",
        passing=True,
    ),
    _rows(_SQL["claim_is_counted"], "a defect: report it with the job's events"),
    _rows(_SQL["resume_is_paid"], "it may run above the provider's limit: report it with the job's events and calls"),
    _rows(_SQL["slots"], "expected for a while after the setting was lowered; else report it: the provider may refuse"),
    _rows(_SQL["one_open_call"], "money may have been paid twice: compare with the provider's own record"),
    _rows(_SQL["paid_once"], "money was paid twice: report it with both calls"),
    _rows(_SQL["provider_task_once"], "two calls claim the same paid work: compare with the provider's own record"),
    _rows(_SQL["job_cost"], "the calls are right: set jobs.cost_micros to their sum, and report how the job ended"),
    _rows(_SQL["booked_when_over"], "compare with the provider's own record, and book what it says"),
    _rows(_SQL["completed_is_over"], "a defect: report it with the job's calls"),
    _rows(_SQL["refused_is_settled"], "the call holds a slot, or was booked by guess: report it with the job's calls"),
    _rows(
        _SQL["calls_are_watched"], "it holds a slot: see that a worker runs, and its log for sweep_failed", passing=True
    ),
)


async def kept_results(connection: Connection) -> tuple[int, str]:
    """Paid results without a stored file that an operator can still have stored: how many, and on which hosts."""
    row = await connection.fetchrow(_SQL["kept_results"])
    return (0, "") if row is None else (row["results"], row["hosts"])
