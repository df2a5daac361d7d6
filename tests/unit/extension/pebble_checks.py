"""What the audit, the doctor and privacy ask whoever has polished pebbles."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from app.db.audit.checks import AuditCheck
from app.db.pool import Connection
from app.domain.audit import Area, Invariant
from app.services.doctor.examination import Group, Seen
from app.services.doctor.findings import Entry, Finding, Severity
from app.services.doctor.opening import DatabasePatient, open_migrated

PEBBLES_END = AuditCheck(
    Invariant("pebbles_end", Area.ROWS, "a polished job leaves no pebble", "polish what is left"),
    """
    select jsonb_build_object('job', j.id, 'item', i.key) as ids, 'it is pending' as found
    from makeit3d.jobs j join makeit3d.job_items i on i.job_id = j.id
    where j.type = 'polish_pebbles' and j.status = 'completed' and i.status = 'pending'
    """,
)

ROUGH = Entry("pebbles_rough", Severity.WARNING, "pebbles wait to be polished", "start a worker that polishes")


async def _rough(patient: DatabasePatient) -> Seen:
    query = "select count(*) from makeit3d.job_items where status = 'pending'"
    rough = await patient.database.fetchval(query)
    return [Finding(ROUGH, f"{rough} pebbles")] if rough else ["all are polished"]


PEBBLES = Group("pebbles", open_migrated, (_rough,))


class PebblesOfUsers:
    """Which pebbles a user sent. Erasing takes their names away."""

    name = "pebbles"

    async def export(self, connection: Connection, user_id: UUID) -> Mapping[str, object]:
        query = (
            "select i.key from makeit3d.job_items i join makeit3d.jobs j on j.id = i.job_id"
            " where j.user_id = $1 and j.type = 'polish_pebbles' order by i.key"
        )
        return {"pebbles": [row["key"] for row in await connection.fetch(query, user_id)]}

    async def erase(self, connection: Connection, user_id: UUID) -> None:
        await connection.execute(
            "delete from makeit3d.job_items i using makeit3d.jobs j"
            " where j.id = i.job_id and j.user_id = $1 and j.type = 'polish_pebbles'",
            user_id,
        )
