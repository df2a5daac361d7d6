"""What a handler works with. A worker process has one toolbox for all its job types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.ai_clients.registry import Providers
from app.calls.paid_calls import PaidCalls
from app.calls.spool import Spool
from app.config import Settings
from app.db import assets
from app.db.pool import Database
from app.errors import AppError, ErrorCode
from app.job_types.polled import PolledCalls
from app.services.input_files import InputFiles
from app.services.job_run import JobRun
from app.services.outputs import Outputs
from app.services.preparation import Preparation
from app.storage.base import ObjectStorage


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
    clock: Callable[[], datetime] = _now

    async def output_of_step(self, run: JobRun, step: int) -> dict[str, Any]:
        """What an earlier step of the request made. Raises AppError(STEP_FAILED)."""
        output = await assets.output_of_step(self.database, run.job.request_id, step)
        if output is None:
            raise AppError(ErrorCode.STEP_FAILED, "The earlier step is not completed.")
        return output
