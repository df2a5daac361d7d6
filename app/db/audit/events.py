"""The event log against the rows, in the order in which readers get it: (xid, id).

Only subjects younger than the log's retention are looked at: what is older has lost its first events.
"""

from __future__ import annotations

from app.db.audit.checks import AuditCheck, check_of
from app.db.sql import Statement, load
from app.domain.audit import Area

_SQL = load(__file__)

_REMEDY = "readers of /events were told something else than the rows say: report it with the events"


def _events(statement: Statement) -> AuditCheck:
    return check_of(statement, Area.EVENTS, _REMEDY)


EVENT_CHECKS = (
    _events(_SQL["job_events"]),
    _events(_SQL["asset_events"]),
    _events(_SQL["task_events"]),
    _events(_SQL["event_order"]),
)
