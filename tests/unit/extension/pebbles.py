"""A job type that the product does not know: it polishes pebbles one by one on our own workers, films that where a film
is wanted, and nobody pays."""

from __future__ import annotations

import asyncio
import io

from app.domain.jobs import Completed, ItemEnd, Outcome, StoredFile
from app.job_types.registry import JobType
from app.job_types.toolbox import Toolbox
from app.services.job_run import JobRun
from PIL import Image, ImageEnhance
from pydantic import BaseModel, Field

from tests.unit.extension.mp4 import film
from tests.unit.extension.video import MP4

_SIDE = 64
_BYTES = 10_000_000


class Pebbles(BaseModel):
    pebbles: list[str] = Field(min_length=1)
    seconds_each: float = 0.0
    pictured_by: int = 1  # the step whose picture is filmed


class PolishPebbles:
    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    async def run(self, run: JobRun, params: Pebbles) -> Outcome:
        polished = 0
        async for item in self._toolbox.items(run, params.pebbles):
            await asyncio.sleep(params.seconds_each)
            if item.key.startswith("dull"):
                await self._toolbox.items_ended(run, [ItemEnd(item.key, "skipped")])
                continue
            await self._toolbox.item_done(run, item, {"shine": len(item.key)})
            polished += 1
        files = (await self._film(run, params),) if run.assets else ()
        return Completed(files, output={"polished": polished}, usage={"pebbles": polished})

    async def _film(self, run: JobRun, params: Pebbles) -> StoredFile:
        """The picture of an earlier step, brighter with every pebble."""
        made = (await self._toolbox.output_of_step(run, params.pictured_by))["files"][0]
        async with self._toolbox.spool.workspace(expected_bytes=_BYTES) as directory:
            picture, target = directory / "picture", directory / "film"
            await self._toolbox.storage.download(made["bucket"], made["key"], picture, max_bytes=_BYTES)
            pictures = await asyncio.to_thread(_brighter, picture.read_bytes(), len(params.pebbles))
            target.write_bytes(film(pictures, _SIDE, _SIDE))
            return await self._toolbox.outputs.store(
                run, run.assets[0], target, content_type=MP4.name, width=_SIDE, height=_SIDE
            )


def _brighter(picture: bytes, times: int) -> list[bytes]:
    with Image.open(io.BytesIO(picture)) as opened:
        small = opened.convert("RGB").resize((_SIDE, _SIDE))
    found: list[bytes] = []
    for number in range(times):
        out = io.BytesIO()
        ImageEnhance.Brightness(small).enhance(0.5 + number / times).save(out, "JPEG")
        found.append(out.getvalue())
    return found


POLISH_PEBBLES = JobType(
    name="polish_pebbles", handler=PolishPebbles, params=Pebbles, permit="none", time_limit_seconds=60.0
)
