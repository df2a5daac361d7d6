"""``/admin``: the ledger, knobs, faults, money and webhooks of the provider stand-ins, behind ``X-Admin-Key``."""

from __future__ import annotations

import hmac
import json
import time
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from app.sandbox.providers.accounts import Account, account_of
from app.sandbox.providers.concurrency import Concurrency
from app.sandbox.providers.faults import KINDS, Fault, Script
from app.sandbox.providers.knobs import KnobBoard, Knobs
from app.sandbox.providers.ledger import Ledger
from app.sandbox.providers.listeners import Listeners, Manner
from app.sandbox.providers.tripo_tasks import Task, Tasks
from app.sandbox.providers.tripo_work import TripoWork
from app.sandbox.providers.webhooks import Webhooks, openai_headers


class Balance(BaseModel):
    """Credits of an account, frozen ones included."""

    model_config = ConfigDict(extra="forbid")

    balance: Decimal = Field(ge=0, le=10**9, decimal_places=2)
    key: SecretStr | None = Field(None, description="API key of the account; the configured one when absent")


class Registration(BaseModel):
    """Where the events of an account go."""

    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(None, pattern="^https?://", description="none switches them off")
    secret: SecretStr = SecretStr("whsec_c2FuZGJveC13ZWJob29rLXNlY3JldA==")
    key: SecretStr | None = None


class OpenAIEvent(BaseModel):
    """An event in OpenAI's scheme. The Images API sends none; receivers can be tried with this."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(pattern="^https?://")
    secret: SecretStr
    type: str = "response.completed"
    data: dict[str, Any] = {"id": "resp_sandbox"}


class Listener(BaseModel):
    manner: Manner


class AdminRoutes:
    def __init__(
        self,
        *,
        admin_key: SecretStr,
        tripo_key: SecretStr,
        board: KnobBoard,
        script: Script,
        ledger: Ledger,
        concurrency: Concurrency,
        tasks: Tasks,
        work: TripoWork,
        webhooks: Webhooks,
        listeners: Listeners,
    ) -> None:
        self._admin_key = admin_key
        self._tripo_key = tripo_key
        self._board = board
        self._script = script
        self._ledger = ledger
        self._concurrency = concurrency
        self._tasks = tasks
        self._work = work
        self._webhooks = webhooks
        self._listeners = listeners

    def mount(self, app: FastAPI) -> None:
        router = APIRouter(prefix="/admin", dependencies=[Depends(self._check)])
        router.add_api_route("/ledger", self.read_ledger, methods=["GET"])
        router.add_api_route("/concurrency", self.read_concurrency, methods=["GET"])
        router.add_api_route("/concurrency", self.forget_concurrency, methods=["DELETE"], status_code=204)
        router.add_api_route("/knobs", self.read_knobs, methods=["GET"])
        router.add_api_route("/knobs", self.turn_knobs, methods=["POST"])
        router.add_api_route("/faults", self.read_faults, methods=["GET"])
        router.add_api_route("/faults", self.arm, methods=["POST"], status_code=201)
        router.add_api_route("/faults", self.clear, methods=["DELETE"], status_code=204)
        router.add_api_route("/balance", self.set_balance, methods=["POST"], status_code=204)
        router.add_api_route("/tasks/{task_id}/end", self.end_task, methods=["POST"])
        router.add_api_route("/webhook", self.register, methods=["POST"], status_code=204)
        router.add_api_route("/webhook/openai", self.send_openai, methods=["POST"])
        router.add_api_route("/listeners", self.listen, methods=["POST"], status_code=201)
        router.add_api_route("/listeners", self.stop_listening, methods=["DELETE"], status_code=204)
        app.include_router(router)

    async def _check(self, x_admin_key: Annotated[str, Header()] = "") -> None:
        if not hmac.compare_digest(x_admin_key.encode(), self._admin_key.get_secret_value().encode()):
            raise HTTPException(403, "X-Admin-Key is missing or wrong")

    def _account(self, key: SecretStr | None) -> Account:
        return account_of((key or self._tripo_key).get_secret_value())

    async def read_ledger(self, *, refused: bool = False, after: int = 0) -> list[dict[str, Any]]:
        """Accepted calls with a number above ``after``, oldest first; with ``refused=true`` the declined ones too."""
        return self._ledger.read(refused=refused, after=after)

    async def read_concurrency(self) -> dict[str, int]:
        """The most calls that were under way at a time, by pool."""
        return self._concurrency.most()

    async def forget_concurrency(self) -> None:
        self._concurrency.forget()

    async def read_knobs(self, x_api_key: Annotated[str | None, Header()] = None) -> Knobs:
        return self._board.of(None if x_api_key is None else account_of(x_api_key).id)

    async def turn_knobs(
        self, changes: Annotated[dict[str, Any], Body()], x_api_key: Annotated[str | None, Header()] = None
    ) -> Knobs:
        """Turn some knobs, for everybody or for the key in ``X-Api-Key``. The rest stays."""
        try:
            return self._board.turn(changes, None if x_api_key is None else account_of(x_api_key).id)
        except ValidationError as error:
            raise HTTPException(422, json.loads(error.json(include_url=False, include_input=False))) from None

    async def read_faults(self) -> dict[str, Any]:
        kinds = {where: sorted(kinds) for where, kinds in KINDS.items()}
        return {"armed": self._script.armed, "hits": self._script.hits, "kinds": kinds}

    async def arm(self, fault: Fault) -> Fault:
        self._script.armed.append(fault)
        return fault

    async def clear(self) -> None:
        self._script.clear()

    async def set_balance(self, wanted: Balance) -> None:
        self._tasks.set_balance(self._account(wanted.key).id, wanted.balance)

    async def end_task(
        self, task_id: str, status: Annotated[Literal["cancelled", "failed", "success"], Body(embed=True)]
    ) -> dict[str, bool]:
        """What the vendor's staff can do: end an unfinished task. ``success`` so comes without output."""
        task: Task | None = self._tasks.one(task_id)
        if task is None:
            raise HTTPException(404, "no such task")
        return {"ended": self._work.end_by_hand(task, status)}

    async def register(self, wanted: Registration) -> None:
        self._webhooks.register(self._account(wanted.key).id, wanted.url, wanted.secret.get_secret_value())

    async def send_openai(self, event: OpenAIEvent) -> dict[str, bool]:
        now = int(time.time())
        event_id = f"evt_{uuid4().hex}"
        value = {"id": event_id, "object": "event", "type": event.type, "created_at": now, "data": event.data}
        body = json.dumps(value, separators=(",", ":")).encode()
        try:
            headers = openai_headers(event.secret.get_secret_value(), event_id, now, body)
        except ValueError:
            raise HTTPException(422, "the secret must be whsec_ and base64") from None
        return {"received": await self._webhooks.post(event.url, headers, body)}

    async def listen(self, wanted: Listener) -> dict[str, int]:
        return {"port": await self._listeners.open(wanted.manner)}

    async def stop_listening(self) -> None:
        await self._listeners.close()
