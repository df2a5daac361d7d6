"""A job type that the product does not know: it polishes pebbles one by one on our own workers, and nobody pays."""

from __future__ import annotations

from app.domain.jobs import Completed, ItemEnd, Outcome
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun
from pydantic import BaseModel, Field


class Pebbles(BaseModel):
    pebbles: list[str] = Field(min_length=1)


class PolishPebbles:
    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    async def run(self, run: JobRun, params: Pebbles) -> Outcome:
        polished = 0
        async for item in self._toolbox.items(run, params.pebbles):
            if item.key.startswith("dull"):
                await self._toolbox.items_ended(run, [ItemEnd(item.key, "skipped")])
                continue
            await self._toolbox.item_done(run, item, {"shine": len(item.key)})
            polished += 1
        return Completed(output={"polished": polished}, usage={"pebbles": polished})


POLISH_PEBBLES = JobType(
    name="polish_pebbles", handler=PolishPebbles, params=Pebbles, permit="none", time_limit_seconds=60.0
)
