"""The paid calls of OpenAI Images: refuse, or accept into the ledger and then work, whatever becomes of the reply."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from app.sandbox.providers.accounts import Account
from app.sandbox.providers.builders import Builders
from app.sandbox.providers.concurrency import Concurrency
from app.sandbox.providers.faults import AFTER, KINDS, Fault, Script
from app.sandbox.providers.knobs import KnobBoard
from app.sandbox.providers.ledger import Call, Ledger
from app.sandbox.providers.openai_faults import SPOILING, encoded, moderation, rate_limited, refusal_of, spoil
from app.sandbox.providers.openai_forms import edit_form, json_fields
from app.sandbox.providers.openai_pictures import Inputs, decode_inputs, draw, partial_of
from app.sandbox.providers.openai_prices import PARTIAL_TOKENS, Usage, picture_tokens
from app.sandbox.providers.openai_replies import Stream, Told, whole_reply
from app.sandbox.providers.openai_strict import ImageOrder, OpenAIRefusal, check_markup, read_order
from app.sandbox.providers.rates import Rates
from app.sandbox.providers.stock import stock_picture
from app.sandbox.providers.strikes import OPENAI_RUBBISH, CutShort, Streamed, reset, strike

_AUTO_QUALITY = "medium"
_POOL = "openai"
_LATE = AFTER | SPOILING
_EARLY = KINDS["openai"] - _LATE
_WITHOUT_FINAL = frozenset({"stream_cut", "stream_error", "moderation_output"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that came in with a good key; ``id`` is told as ``x-request-id``."""

    request: Request
    account: Account
    id: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """A paid order and how it will be told."""

    order: ImageOrder
    inputs: Inputs
    size: tuple[int, int]
    told: Told
    usage: Usage


class ImageCalls:
    def __init__(
        self,
        board: KnobBoard,
        script: Script,
        ledger: Ledger,
        concurrency: Concurrency,
        builders: Builders,
        seed: int,
    ) -> None:
        self._board = board
        self._script = script
        self._ledger = ledger
        self._concurrency = concurrency
        self._builders = builders
        self._seed = seed
        self._chance = random.Random(seed)
        self.rates = Rates()

    async def generate(self, asked: Asked) -> Response:
        fields, digest = await json_fields(asked.request)
        call = Call("openai", "generation", asked.account, digest)
        if (answer := await self._struck_early(asked, call, fields.get("prompt"))) is not None:
            return answer
        with _recording(self._ledger, call):
            self._enter(asked)
            order = read_order("generation", fields, from_form=False)
        return await self._accepted(asked, call, order, Inputs())

    async def edit(self, asked: Asked) -> Response:
        form = await edit_form(asked.request)
        call = Call("openai", "edit", asked.account, form.digest)
        if (answer := await self._struck_early(asked, call, form.fields.get("prompt"))) is not None:
            return answer
        with _recording(self._ledger, call):
            self._enter(asked)
            order = read_order("edit", form.fields, from_form=True)
            if "markup" in form.overlays:
                check_markup(order, masked="mask" in form.overlays)
            inputs = await self._builders.run(
                decode_inputs, form.images, form.overlays.get("mask"), form.overlays.get("markup")
            )
        return await self._accepted(asked, call, order, inputs)

    # --- before acceptance ----------------------------------------------------------------------------------

    async def _struck_early(self, asked: Asked, call: Call, prompt: object) -> Response | None:
        await asyncio.sleep(self._board.of(asked.account.id).submit_seconds)
        fault = self._take(asked, str(prompt), _EARLY)
        if fault is None:
            return None
        refusal = refusal_of(fault)
        answer = await strike(fault, asked.request, OPENAI_RUBBISH) if refusal is None else refusal.response()
        if answer is not None:
            self._ledger.refuse(call, fault.kind)
        return answer

    def _enter(self, asked: Asked) -> None:
        wait = self.rates.enter("images", asked.account.id, self._board.of(asked.account.id).openai_per_minute)
        if wait is not None:
            headers = {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}
            raise rate_limited(headers)

    def _take(self, asked: Asked, prompt: str, among: frozenset[str]) -> Fault | None:
        path = asked.request.url.path
        return self._script.take("openai", path=path, prompt=prompt, account=asked.account, among=among)

    # --- from here on the call is paid ----------------------------------------------------------------------

    async def _accepted(self, asked: Asked, call: Call, order: ImageOrder, inputs: Inputs) -> Response:
        quality, size = order.quality or _AUTO_QUALITY, inputs.size_for(order)
        tokens = order.n * picture_tokens(order.model, quality, size)
        if order.stream:
            tokens += order.n * order.partial_images * PARTIAL_TOKENS
        usage = Usage.of(order.prompt, inputs.sizes, tokens)
        paid = Accepted(order, inputs, size, Told.of(order, size, quality), usage)
        fault = self._take(asked, order.prompt, _LATE)
        self._ledger.accept_alone(call, reference=asked.id, charged=usage.micros)
        with self._concurrency.one(_POOL):
            if fault is not None:
                self._ledger.replied(asked.id, fault.kind)
                answer = await strike(fault, asked.request, OPENAI_RUBBISH)
                if answer is not None:
                    return answer
            if order.stream:
                return self._streamed(asked, paid, fault)
            return await self._whole(asked, paid, fault)

    async def _whole(self, asked: Asked, paid: Accepted, fault: Fault | None) -> Response:
        created = int(time.time())
        if fault is not None and fault.kind == "moderation_output":
            await asyncio.sleep(self._work_seconds(asked))  # nobody will see the pictures
            self._ledger.release(asked.id)
            raise moderation("output")
        draws = asyncio.gather(*self._draws(asked, paid))
        pictures, _ = await asyncio.gather(draws, asyncio.sleep(self._work_seconds(asked)))
        shown = encoded(pictures) if fault is None else await self._builders.run(spoil, fault, pictures)
        usage = None if fault is not None and fault.kind == "no_usage" else paid.usage
        body = await self._builders.run(whole_reply, paid.told, shown, usage, created)
        reply = Response(body, media_type="application/json")
        if fault is not None and fault.kind == "cut_after":
            return CutShort(reply)
        await self._delivered(asked, fault)
        return reply

    def _streamed(self, asked: Asked, paid: Accepted, fault: Fault | None) -> Response:
        stream = Stream(
            order=paid.order,
            told=paid.told,
            usage=paid.usage,
            pictures=self._draws(asked, paid),
            work_seconds=self._work_seconds(asked),
            partial=lambda picture, share: self._builders.run(partial_of, picture, paid.order, share),
            cut=partial(reset, asked.request.scope),
            fault=fault,
        )

        async def blocks() -> AsyncGenerator[bytes]:
            with self._concurrency.one(_POOL):
                async for block in stream.events():
                    yield block
            if fault is not None and fault.kind == "moderation_output":
                self._ledger.release(asked.id)
            elif fault is None or fault.kind not in _WITHOUT_FINAL:
                await self._delivered(asked, fault)

        return Streamed(blocks(), headers={"content-type": "text/event-stream; charset=utf-8"})

    def _draws(self, asked: Asked, paid: Accepted) -> list[asyncio.Task[bytes]]:
        return [asyncio.create_task(self._draw(asked, paid, self._seed + index)) for index in range(paid.order.n)]

    async def _draw(self, asked: Asked, paid: Accepted, seed: int) -> bytes:
        if self._board.of(asked.account.id).drawing == "stock":
            return stock_picture(paid.size, paid.order.output_format)
        return await self._builders.run(draw, paid.order, paid.inputs, paid.size, seed)

    def _work_seconds(self, asked: Asked) -> float:
        return self._board.of(asked.account.id).draw_work_seconds(self._chance)

    async def _delivered(self, asked: Asked, fault: Fault | None) -> None:
        gone = await asked.request.is_disconnected()
        if fault is None:
            self._ledger.replied(asked.id, "gone" if gone else "sent")
        if not gone:
            self._ledger.delivered(asked.id)


@contextmanager
def _recording(ledger: Ledger, call: Call) -> Generator[None]:
    """Refusals inside are written into the ledger on their way."""
    try:
        yield
    except OpenAIRefusal as refusal:
        ledger.refuse(call, refusal.code or refusal.type)
        raise
