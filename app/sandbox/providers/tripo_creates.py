"""The creates: checked, accepted into queue and ledger in one transaction, and begun."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.providers.faults import AFTER, BEFORE, TRIPO_REFUSALS
from app.sandbox.providers.ledger import Call, Ledger
from app.sandbox.providers.strikes import CutShort
from app.sandbox.providers.tripo_calls import Asked, Handler, TripoCalls
from app.sandbox.providers.tripo_inputs import Inputs
from app.sandbox.providers.tripo_prices import price_of
from app.sandbox.providers.tripo_refusals import TripoRefusal, no_credits, pool_full
from app.sandbox.providers.tripo_strict import check_body, pool_of
from app.sandbox.providers.tripo_tasks import NewTask, PoolFull, Task, Tasks, TooPoor
from app.sandbox.providers.tripo_work import TripoWork
from app.sandbox.providers.webhooks import Webhooks

_CREATES = {
    "/generation/text-to-model": "text-to-model",
    "/generation/image-to-model": "image-to-model",
    "/generation/multiview-to-model": "multiview-to-model",
    "/generation/image-to-image": "image-to-image",
    "/generation/text-to-image": "text-to-image",
    "/generation/image-to-multiview": "image-to-multiview",
    "/generation/edit-multiview": "edit-multiview",
    "/models/texture": "texture",
    "/models/convert": "convert",
    "/models/import": "import",
}
_EARLY = BEFORE | TRIPO_REFUSALS
_POOL_PAUSE = 2  # seconds, told as Retry-After


class TripoCreates:
    def __init__(
        self,
        calls: TripoCalls,
        tasks: Tasks,
        inputs: Inputs,
        ledger: Ledger,
        work: TripoWork,
        webhooks: Webhooks,
        seed: int,
    ) -> None:
        self._calls = calls
        self._tasks = tasks
        self._inputs = inputs
        self._ledger = ledger
        self._work = work
        self._webhooks = webhooks
        self._chance = random.Random(seed)

    def routes(self) -> list[Route]:
        creates = [
            Route(path, self._calls.answering(self._creating(kind)), methods=["POST"])
            for path, kind in _CREATES.items()
        ]
        return [*creates, Route("/models/refine", self._calls.answering(_refine), methods=["POST"])]

    def _creating(self, kind: str) -> Handler:
        async def create(asked: Asked) -> Response:
            body, raw = await asked.json()
            call = Call("tripo", kind, asked.account, hashlib.sha256(raw).hexdigest())
            await self._calls.pause(asked.knobs.submit_seconds)
            early = self._calls.take(asked, "tripo.submit", _EARLY, prompt=_words(body))
            try:
                answer = await self._calls.struck(asked, early)
                if answer is not None and early is not None:
                    self._ledger.refuse(call, early.kind)
                    return answer
                self._calls.enter(asked, "create", asked.knobs.creations_per_minute)
                task = await self._accept(asked, call, body)
            except TripoRefusal as refusal:
                self._ledger.refuse(call, str(refusal.code))
                raise
            return await self._reply(asked, task)

        return create

    async def _accept(self, asked: Asked, call: Call, body: dict[str, Any]) -> Task:
        knobs = asked.knobs
        check_body(call.kind, body)
        fetched = await self._inputs.check(call.kind, body, asked.account, token_seconds=knobs.token_seconds)
        pool = pool_of(call.kind, body)
        fault = self._calls.take(asked, "tripo.task", prompt=_words(body))
        new = NewTask(
            call=call,
            pool=pool,
            body=body,
            fetched=fetched,
            price=price_of(call.kind, body, knobs.credit_factor),
            work_seconds=0.0 if call.kind == "import" else knobs.draw_work_seconds(self._chance),
            fault=None if fault is None else fault.kind,
            fault_seconds=0.0 if fault is None else fault.seconds,
        )
        try:
            task = self._tasks.accept(new, slots=knobs.pools[pool])
        except PoolFull:
            raise pool_full(_POOL_PAUSE) from None
        except TooPoor:
            raise no_credits() from None
        self._work.begin(task)
        return task

    async def _reply(self, asked: Asked, task: Task) -> Response:
        """From here on the task runs, whatever becomes of the reply."""
        if self._calls.take(asked, "webhook", frozenset({"before_reply"})) is not None:
            await self._work.ended(task.id)
            await self._webhooks.sent()
        reply = asked.success({"task_id": task.id, "type": task.kind.replace("-", "_"), "status": "queued"})
        late = self._calls.take(asked, "tripo.submit", AFTER, prompt=_words(task.body))
        if late is not None:
            self._ledger.replied(task.id, late.kind)
            if late.kind == "cut_after":
                return CutShort(reply)
            return await self._calls.struck(asked, late) or reply
        self._ledger.replied(task.id, "gone" if await asked.request.is_disconnected() else "sent")
        return reply


async def _refine(asked: Asked) -> Response:
    """Every submission to the retired path is refused: 2015 for old drafts, 2006 for current ones."""
    del asked
    raise TripoRefusal(400, 2015, "This version is deprecated")


def _words(body: Mapping[str, Any]) -> str:
    """What a fault may know a create by."""
    texture = body.get("texture_prompt")
    return str(body.get("prompt") or (texture.get("text") if isinstance(texture, Mapping) else None) or "")
