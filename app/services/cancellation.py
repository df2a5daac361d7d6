"""Canceling a task: its jobs and assets end at once; what is open at a provider is paid and followed to its end."""

from __future__ import annotations

from uuid import UUID

import structlog

from app.db import tasks
from app.db.pool import Database
from app.domain.statuses import JobStatus
from app.domain.task_ids import is_task_id
from app.errors import AppError, ErrorCode
from app.services.notifier import Notifier
from app.services.vacancies import Vacancies

log = structlog.get_logger(__name__)


class Cancellation:
    def __init__(self, database: Database, vacancies: Vacancies, notifier: Notifier) -> None:
        self._database = database
        self._vacancies = vacancies
        self._notifier = notifier

    async def cancel(self, task_id: str, user_id: UUID) -> None:
        """Idempotent. Raises AppError: TASK_NOT_FOUND, TASK_NOT_CANCELABLE when it ended another way."""
        if not is_task_id(task_id):
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        pools = await tasks.cancel(self._database, task_id, user_id)
        if pools:
            self._notifier.changed([(task_id, user_id)])
            await self._vacancies.announce(pools=pools, users=[user_id])
            log.info("task_canceled", task_id=task_id, pools=pools)
            return
        task = None if pools is None else await tasks.get(self._database, task_id, user_id)
        if task is None:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        if task.status != JobStatus.CANCELED:
            raise AppError(ErrorCode.TASK_NOT_CANCELABLE, f"The task is {task.status}.")
