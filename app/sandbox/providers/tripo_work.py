"""Running tasks: queued until a builder is free, running while it builds and while the work is meant to last.

Every unfinished task goes on after a restart; what was half written is written anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace

from app.sandbox.providers.builders import Builders
from app.sandbox.providers.knobs import KnobBoard
from app.sandbox.providers.tripo_inputs import Inputs
from app.sandbox.providers.tripo_results import Maker
from app.sandbox.providers.tripo_tasks import Task, Tasks
from app.sandbox.providers.webhooks import Webhooks

log = logging.getLogger(__name__)

_ENDS: dict[str, tuple[str, int | None, str | None]] = {
    "failed": ("failed", 2008, "The content violates the content policy"),
    "failed_2018": ("failed", 2018, "The task expired in the queue"),
    "failed_1001": ("failed", 1001, "Internal server error"),
    "banned": ("banned", 2008, "The content violates the content policy"),
    "expired": ("expired", 2018, "The task expired in the queue"),
    "cancelled": ("cancelled", None, None),
}
STUCK = frozenset({"stays_queued", "stays_at_99", "unknown", "new_word"})
"""Faults that hold a task up; it goes on when their seconds are over."""


class TripoWork:
    def __init__(
        self, tasks: Tasks, inputs: Inputs, maker: Maker, builders: Builders, board: KnobBoard, webhooks: Webhooks
    ) -> None:
        self._tasks = tasks
        self._inputs = inputs
        self._maker = maker
        self._builders = builders
        self._board = board
        self._webhooks = webhooks
        self._running: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(builders.width)

    def resume(self) -> None:
        """Go on with what an earlier process left unfinished."""
        for task in self._tasks.unfinished():
            self.begin(task)

    def begin(self, task: Task) -> None:
        running = asyncio.create_task(self._run(task))
        self._running[task.id] = running
        running.add_done_callback(lambda _: self._running.pop(task.id, None))

    async def ended(self, task_id: str) -> None:
        """Wait until a task is over."""
        running = self._running.get(task_id)
        if running is not None:
            await asyncio.wait([running])

    def end_by_hand(self, task: Task, status: str) -> bool:
        """What the vendor's console can do: end an unfinished task. False when it was over."""
        running = self._running.get(task.id)
        ended = self._end(task, status)
        if running is not None:
            running.cancel()
        return ended

    async def close(self) -> None:
        for running in list(self._running.values()):
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, task: Task) -> None:
        try:
            await self._work(task)
        except (ValueError, OSError) as error:
            # the message is of the mesh reader or the picture decoder, and meant for clients
            message = str(error) if isinstance(error, ValueError) else "the input cannot be read"
            self._end(task, "failed", error_code=2018, error_message=f"too complex: {message}")
        except Exception:
            log.exception("a sandbox task ended by a defect")
            self._end(task, "failed", error_code=1001, error_message="Internal server error")

    async def _work(self, task: Task) -> None:
        if task.fault == "stays_queued":
            await _sleep_until(task.created_at + task.fault_seconds)
        output: dict[str, str] = {}
        async with self._free:
            self._tasks.start(task.id)
            started = task.started_at or time.time()
            if task.fault not in _ENDS:
                knobs = self._board.of(task.account)
                job = replace(self._inputs.job(task), model_bytes=knobs.model_bytes)
                output = await self._builders.run(self._maker.make, job, stock=knobs.drawing == "stock")
        await _sleep_until(started + task.work_seconds)
        if task.fault in STUCK:
            await _sleep_until(task.created_at + task.fault_seconds)
        if task.fault in _ENDS:
            status, code, message = _ENDS[task.fault]
            self._end(task, status, error_code=code, error_message=message)
            return
        self._end(task, "success", output={} if task.fault == "no_output" else output)

    def _end(
        self,
        task: Task,
        status: str,
        *,
        output: dict[str, str] | None = None,
        error_code: int | None = None,
        error_message: str | None = None,
    ) -> bool:
        if not self._tasks.finish(task, status, output=output, error_code=error_code, error_message=error_message):
            return False
        ended = self._tasks.one(task.id)
        if ended is not None:
            self._webhooks.task_ended(ended)
            left = self._tasks.money(task.account).available
            threshold = self._board.of(task.account).low_balance
            if left < threshold:
                self._webhooks.balance_low(ended, left, threshold)
        return True


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.time()))
