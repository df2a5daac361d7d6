"""Files that a job put into the bucket and then ended without: a canceled or failed job leaves none."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from prometheus_client import Counter

from app.config import Settings
from app.db import files
from app.db.files import FileRow
from app.db.pool import UNREACHABLE, Database
from app.domain.crash_points import Boundary, boundary
from app.services.job_run import JobRun
from app.storage.base import ObjectStorage, StorageError

log = structlog.get_logger(__name__)

REMOVED = Counter("makeit3d_leftovers_removed_total", "Files removed from the bucket that belong to nobody", ["when"])

_UNOWNED_SECONDS = 3600.0  # an upload of a client that broke off
_PER_ROUND = 100


class Leftovers:
    def __init__(self, database: Database, storage: ObjectStorage, settings: Settings) -> None:
        self._database = database
        self._storage = storage
        # by then a process that lost its claim has noticed, and storage has seen the last of its upload
        self._grace = settings.supabase_timeout_seconds + settings.worker_ttl_seconds

    async def discard(self, run: JobRun) -> None:
        """Remove at once what a run left behind whose job has ended. What can not be removed now, the sweep removes."""
        try:
            left = await files.left_by(self._database, run.claim.job_id)
            # an upload that was cut may still arrive: only the sweep may call its row removed
            await self._remove(left, for_good=not run.upload_cut, when="at_once")
        except UNREACHABLE as error:
            log.warning("leftovers_stay_for_the_sweep", error=type(error).__name__)

    async def sweep(self) -> None:
        """Remove what nobody is still at."""
        abandoned = await files.abandoned_uploads(
            self._database, ended_seconds=self._grace, unowned_seconds=_UNOWNED_SECONDS, limit=_PER_ROUND
        )
        await self._remove(abandoned, for_good=True, when="sweep")

    async def _remove(self, rows: Iterable[FileRow], *, for_good: bool, when: str) -> None:
        for row in rows:
            try:
                with boundary(Boundary.REMOVE, [row.task_id]):
                    await self._storage.remove(row.bucket, [row.key])
            except StorageError as error:
                log.warning("leftover_not_removed", key=row.key, error=type(error).__name__)
                return
            REMOVED.labels(when).inc()
            log.info("leftover_removed", key=row.key)
            if for_good:
                with boundary(Boundary.REMOVE, [row.task_id]):
                    await files.mark_removed(self._database, row.id)
