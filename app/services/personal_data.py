"""The seat of whoever keeps data of users: what an export hands out, and what an erasure takes away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from app.db.pool import Connection


class PersonalData(Protocol):
    """The rows of one package. Each seat answers for its own tables."""

    @property
    def name(self) -> str:
        """Of its part of an export."""
        ...

    async def export(self, connection: Connection, user_id: UUID) -> Mapping[str, object]:
        """What the user gets, as JSON can hold it. ``connection`` sees one moment for all seats."""
        ...

    async def erase(self, connection: Connection, user_id: UUID) -> None:
        """Within the transaction of all seats. It may come again for the same user."""
        ...
