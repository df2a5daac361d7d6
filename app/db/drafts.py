"""Models that a user had made and may have refined, by the provider's task id."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.db.pool import Database
from app.db.sql import load

_SQL = load(__file__)


@dataclass(frozen=True, slots=True)
class Draft:
    kind: str  # what the provider's task made
    is_finished: bool  # and with success


async def owned(database: Database, *, provider: str, provider_task_id: str, user_id: UUID) -> Draft | None:
    """A task of the user's own journal: the proof that a draft is theirs."""
    row = await database.fetchrow(
        _SQL["call_of_draft"], provider=provider, provider_task_id=provider_task_id, user_id=user_id
    )
    return None if row is None else Draft(row["kind"], row["is_finished"])
