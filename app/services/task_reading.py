"""What a user reads of their own tasks: the list, and one with everything that was asked for."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from app.db import tasks
from app.db.pool import Database
from app.domain.task_ids import is_task_id
from app.domain.tasks import TaskRow
from app.errors import AppError, ErrorCode


class TaskReading:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, user_id: UUID, *, status: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> tuple[list[TaskRow], bool]:
        """The user's tasks, newest first, and whether there are more; ``before`` is (created_at, id) of the last one of
        the page before."""
        rows = await tasks.list_page(self._database, user_id, status=status, before=before, limit=limit + 1)
        return rows[:limit], len(rows) > limit

    async def detail(self, task_id: str, user_id: UUID) -> tuple[TaskRow, list[dict[str, Any]]]:
        """A task and its requests, oldest first. Raises AppError(TASK_NOT_FOUND)."""
        row = await tasks.get(self._database, task_id, user_id) if is_task_id(task_id) else None
        if row is None:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        return row, await tasks.requests_of(self._database, task_id)
