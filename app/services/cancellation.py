"""Canceling a task: its jobs and assets end at once; what is open at a provider is paid and followed to its end."""

from __future__ import annotations

from uuid import UUID

import structlog

from app.db import tasks
from app.domain.statuses import JobStatus
from app.domain.task_ids import is_task_id
from app.errors import AppError, ErrorCode
from app.queue.transitions import Queue
from app.services.publisher import Publisher

log = structlog.get_logger(__name__)


class Cancellation:
    def __init__(self, queue: Queue, publisher: Publisher) -> None:
        self._queue = queue
        self._publisher = publisher

    async def cancel(self, task_id: str, user_id: UUID) -> None:
        """Idempotent. Raises AppError: TASK_NOT_FOUND, TASK_NOT_CANCELABLE when it ended another way."""
        if not is_task_id(task_id):
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        canceled = await self._queue.cancel(task_id, user_id)
        if canceled is not None and canceled.pools:
            self._publisher.publish(canceled.committed)
            log.info("task_canceled", task_id=task_id, pools=canceled.pools)
            return
        task = None if canceled is None else await tasks.get(self._queue.database, task_id, user_id)
        if task is None:
            raise AppError(ErrorCode.TASK_NOT_FOUND)
        if task.status != JobStatus.CANCELED:
            raise AppError(ErrorCode.TASK_NOT_CANCELABLE, f"The task is {task.status}.")
