"""What holds jobs back from outside: the places of their user, and the breaker of their provider."""

from __future__ import annotations

from app.db.audit.checks import AuditCheck, check_of
from app.db.sql import Statement, load
from app.domain.audit import Area

_SQL = load(__file__)


def _rows(statement: Statement, remedy: str, *, passing: bool = False) -> AuditCheck:
    return check_of(statement, Area.ROWS, remedy, passing=passing)


WAIT_CHECKS = (
    _rows(
        _SQL["user_place"],
        "no worker sweeps, or the audit has another BFF_USER_MAX_IN_FLIGHT than the workers",
        passing=True,
    ),
    _rows(_SQL["dependency_open"], "a defect: report it with the job's events"),
    _rows(_SQL["dependents_told"], "no worker sweeps, or its log has advance_failed: see the runbook", passing=True),
    _rows(_SQL["breaker_exists"], "its failures count for nothing: start a worker or the API, which makes the row"),
    _rows(_SQL["breaker_state"], "close it by hand: makeit3d breaker close"),
    _rows(_SQL["breaker_wait"], "no worker sweeps: start one, look at its log for sweep_failed", passing=True),
)
