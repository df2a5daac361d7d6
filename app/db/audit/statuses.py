"""Status words against each other: task, request, job and asset rows tell one story."""

from __future__ import annotations

from app.db.audit.checks import AuditCheck, check_of
from app.db.sql import Statement, load
from app.domain.audit import Area

_SQL = load(__file__)

_REPAIR = "`makeit3d jobs show` the job; a defect: report it with the job's events"


def _rows(statement: Statement, remedy: str = _REPAIR, *, passing: bool = False) -> AuditCheck:
    return check_of(statement, Area.ROWS, remedy, passing=passing)


STATUS_CHECKS = (
    _rows(_SQL["request_status"]),
    _rows(_SQL["task_status"]),
    _rows(_SQL["asset_status"]),
    _rows(_SQL["job_has_output"]),
    _rows(_SQL["ended_says_why"]),
    _rows(_SQL["ended_says_when"]),
    _rows(_SQL["waiting_reason"]),
    _rows(_SQL["planned_steps"]),
    _rows(_SQL["due_is_woken"], "no worker sweeps: start one, look at its log for sweep_failed", passing=True),
    _rows(_SQL["main_job"]),
    _rows(_SQL["idempotency"]),
    _rows(_SQL["reserved_numbers"]),
    _rows(_SQL["one_owner"], "somebody may see what is not theirs: find out who wrote the row before anything else"),
    _rows(_SQL["one_task"]),
)
