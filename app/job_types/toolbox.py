"""What a handler works with. A worker process has one toolbox for all its job types."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ai_clients.registry import Providers
from app.calls.paid_calls import PaidCalls
from app.calls.spool import Spool
from app.config import Settings
from app.db import assets
from app.db.pool import Database
from app.domain.jobs import Item, ItemEnd
from app.errors import AppError, ErrorCode
from app.job_types.polled import PolledCalls
from app.queue.contracts import Committed
from app.queue.transitions import Queue
from app.services.input_files import InputFiles
from app.services.job_run import ClaimLost, JobRun
from app.services.outputs import Outputs
from app.services.preparation import Preparation
from app.services.publisher import Publisher
from app.storage.base import ObjectStorage

_ITEMS_AT_A_TIME = 100


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Further work is no tool: a handler names it in ``Completed.follow_ups``."""

    settings: Settings
    database: Database
    storage: ObjectStorage
    providers: Providers
    calls: PaidCalls
    polled: PolledCalls
    preparation: Preparation
    inputs: InputFiles
    outputs: Outputs
    spool: Spool
    queue: Queue
    publisher: Publisher
    clock: Callable[[], datetime] = _now

    async def output_of_step(self, run: JobRun, step: int) -> dict[str, Any]:
        """What an earlier step of the request made; of several jobs, the first. Raises AppError(STEP_FAILED)."""
        return (await self.outputs_of_step(run, step))[0]

    async def outputs_of_step(self, run: JobRun, step: int) -> list[dict[str, Any]]:
        """What the jobs of an earlier step made, in their order. Raises AppError(STEP_FAILED)."""
        outputs = await assets.outputs_of_step(self.database, run.job.request_id, step)
        if not outputs:
            raise AppError(ErrorCode.STEP_FAILED, "The earlier step is not completed.")
        return outputs

    # --- progress -------------------------------------------------------------------------------------------

    async def progress(self, run: JobRun, done: int, total: int) -> None:
        """So much of the work is done. It is written and told when it makes a new percent. Raises ClaimLost."""
        percent = min(99, 100 * done // total) if total > 0 else 0  # 100 is for a job that completed
        if percent == run.percent:
            return
        self._told(await self.queue.record_progress(run.claim, percent=percent, done=done, total=total))
        run.percent = percent

    async def items(self, run: JobRun, keys: Sequence[str] = ()) -> AsyncGenerator[Item]:
        """The items of the job that no run has ended yet, in order: those it was accepted with, and ``keys``, which
        another run repeats. End each with ``item_done`` or ``items_ended``; between two of them a stop, a cancel or a
        lost lease ends the run.

        Raises ClaimLost, HandBack.
        """
        if keys:
            self._told(await self.queue.add_items(run.claim, keys))
        after = 0
        while found := await self.queue.pending_items(run.claim.job_id, after=after, most=_ITEMS_AT_A_TIME):
            for item in found:
                run.check()
                yield item
                after = item.position

    async def item_done(self, run: JobRun, item: Item, output: Mapping[str, Any] | None = None) -> None:
        """Raises ClaimLost."""
        await self.items_ended(run, [ItemEnd(item.key, "done", output=output or {})])

    async def items_ended(self, run: JobRun, ends: Sequence[ItemEnd]) -> None:
        """Several at once, also skipped and failed ones: a bad item fails no job. Raises ClaimLost."""
        self._told(await self.queue.record_items(run.claim, ends))

    def _told(self, committed: Committed | None) -> None:
        if committed is None:
            raise ClaimLost
        self.publisher.publish(committed)
