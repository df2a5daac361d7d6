"""Tripo v3: a paid POST answers with an id, which is polled. Source: Tripo's API reference and SDKs.

Tripo has no idempotency key and no search: every create carries a fresh random seed and fresh upload tokens, by
which it is found again in the account's usage listing when its answer was lost.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from app.ai_clients.base import (
    Balance,
    BeforeFirstByte,
    Capability,
    DownloadedFile,
    Estimate,
    ModelRequest,
    PreparedCall,
    ProviderTask,
    RecordedCall,
    Request,
)
from app.ai_clients.errors import Advice, OutcomeUnknown, Refused
from app.ai_clients.http.failures import unreachable
from app.ai_clients.tripo import requests
from app.ai_clients.tripo.api import Pace, TripoApi
from app.ai_clients.tripo.downloads import Downloads, Hosts
from app.ai_clients.tripo.errors import TripoReply, create_failure
from app.ai_clients.tripo.limits import CAPABILITIES
from app.ai_clients.tripo.prices import credits_to_micros
from app.ai_clients.tripo.requests import Versions
from app.ai_clients.tripo.settings import TripoSettings
from app.ai_clients.tripo.tasks import (
    UsageRow,
    decimal_of,
    matches,
    missing,
    parse_listing,
    parse_task,
    parse_usage,
)
from app.config import Settings
from app.errors import ErrorCode

_LIST = 100  # ids per listing request
_PAGE = 200  # rows per usage request
_MAX_PAGES = 50
_CLOCK_SKEW = timedelta(minutes=5)
_EARLIEST = timedelta(seconds=60)  # before the intent, by the provider's clock
_MAX_TASK_ID = 200


class TripoModels:
    """A PolledProvider of models and rendered sketches. Owns its HTTP clients; ``aclose`` closes them."""

    name = "tripo"
    capabilities = CAPABILITIES

    def __init__(self, settings: Settings, context: ssl.SSLContext, *, pace: Pace | None = None) -> None:
        own = TripoSettings.of(settings)
        self.timeout_seconds = own.timeout_seconds
        self.poll_seconds = own.poll_seconds
        self._versions = Versions(own.model_version, own.texture_version)
        self._chance = random.SystemRandom()
        hosts = Hosts(settings)
        self._api = TripoApi(settings, context, hosts, pace or Pace())
        self._downloads = Downloads(context, hosts)

    def pool(self, request: Request) -> str:
        return requests.pool_of(_ours(request), self._versions)

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:  # noqa: ARG002 - all cost the same
        return requests.estimate(_ours(request), self._versions)

    async def prepare(self, request: Request) -> PreparedCall:
        """Upload the inputs afresh and build the create. Raises Refused."""
        spec = _ours(request)
        requests.check(spec, self._versions)
        pictures = requests.pictures_of(spec)
        try:
            tokens = {str(view): await self._api.upload(file, is_model=False) for view, file in pictures.items()}
            if spec.model_file is not None:
                tokens["model"] = await self._api.upload(spec.model_file, is_model=True)
        except OSError:
            raise Refused(ErrorCode.INTERNAL_ERROR, "An input file could not be read.", advice=Advice.RETRY) from None
        return requests.build(spec, tokens, self._versions, self._chance)

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        """Send the one paid POST; the task's id. Raises Refused, OutcomeUnknown."""
        try:
            reply = await self._api.create(call.path, call.body, before_first_byte=before_first_byte)
            if reply.succeeded:
                return _task_id(reply)
            raise create_failure(
                reply,
                api_key=self._api.key,
                capability=call.capability,
                model_is_configured=self._versions.is_configured(call.body),
            )
        except OutcomeUnknown:
            if call.capability is Capability.IMPORT_MODEL:
                # an import costs nothing: a second one is only a second copy
                raise unreachable() from None
            raise

    async def poll(self, task_ids: Sequence[str]) -> Mapping[str, ProviderTask]:
        """The tasks as they are; one request per hundred. Raises Refused when a listing fails."""
        listed: dict[str, Mapping[str, Any]] = {}
        for chunk in _chunks(list(dict.fromkeys(task_ids)), _LIST):
            listed |= parse_listing(await self._api.post("/tasks/list", {"task_ids": chunk}))
        return {
            task_id: parse_task(task_id, listed[task_id]) if task_id in listed else missing(task_id)
            for task_id in task_ids
        }

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        return await self._downloads.fetch(url, target, max_bytes=max_bytes)

    async def find_submitted(
        self, fingerprint: Mapping[str, Any], *, since: datetime, known_ids: frozenset[str]
    ) -> Sequence[str]:
        """Tasks of the account that are this call, by what they echo of it. Raises Refused: then nothing is known."""
        rows = await self._usage_since(since)
        candidates = dict.fromkeys(
            row.task_id
            for row in rows
            if row.task_id not in known_ids and (row.created_at is None or row.created_at >= since - _EARLIEST)
        )
        tasks = await self.poll(list(candidates))
        return [task.id for task in tasks.values() if matches(fingerprint, task.echoed_input)]

    async def recorded_calls(self, *, since: datetime) -> Sequence[RecordedCall]:
        """The account's usage listing. Raises Refused."""
        return [
            RecordedCall(
                row.task_id,
                row.kind,
                row.created_at,
                credits_to_micros(row.credits) if row.over and row.credits is not None else None,
            )
            for row in await self._usage_since(since)
            if row.created_at is not None and row.created_at >= since
        ]

    async def _usage_since(self, since: datetime) -> list[UsageRow]:
        """All rows of the listing that may be younger than ``since``; its order is not relied upon."""
        rows: list[UsageRow] = []
        for page in range(_MAX_PAGES):
            params = {"limit": _PAGE, "offset": page * _PAGE}
            found = parse_usage(await self._api.get("/account/usage", params))
            rows += found
            if len(found) < _PAGE or _is_past(found, since - _CLOCK_SKEW):
                return rows
        raise Refused(
            ErrorCode.PROVIDER_UNAVAILABLE, "The provider's listing is too long to be searched.", advice=Advice.RETRY
        )

    async def balance(self) -> Balance:
        """Credits of the account. Raises Refused."""
        data = await self._api.get("/account/balance")
        fields = cast("Mapping[str, object]", data) if isinstance(data, Mapping) else {}
        available, frozen = decimal_of(fields.get("balance")), decimal_of(fields.get("frozen"))
        if available is None:
            raise Refused(ErrorCode.PROVIDER_UNAVAILABLE, "The provider does not say its balance.", advice=Advice.RETRY)
        return Balance(available, frozen if frozen is not None else Decimal(0), "credits")

    async def aclose(self) -> None:
        await asyncio.gather(self._api.aclose(), self._downloads.aclose())


def _ours(request: Request) -> ModelRequest:
    """Raises Refused for what this provider cannot make: nobody planned that."""
    if isinstance(request, ModelRequest):
        return request
    raise Refused(ErrorCode.PROVIDER_REQUEST_REFUSED, "This provider makes models only.")


def _task_id(reply: TripoReply) -> str:
    """The new task's id. Raises OutcomeUnknown: a success without one has probably been charged."""
    data = cast("Mapping[str, object]", reply.data) if isinstance(reply.data, Mapping) else {}
    task_id = data.get("task_id")
    if isinstance(task_id, str) and 0 < len(task_id) <= _MAX_TASK_ID:
        return task_id
    raise OutcomeUnknown(
        ErrorCode.PROVIDER_OUTCOME_UNKNOWN, "The provider took the request but named no task.", http_status=reply.status
    )


def _is_past(rows: Sequence[UsageRow], moment: datetime) -> bool:
    """Whether a page, and so all that follow it, is older than ``moment``: only told of a page that descends."""
    times = [row.created_at for row in rows if row.created_at is not None]
    return len(times) == len(rows) and times == sorted(times, reverse=True) and times[0] < moment


def _chunks(items: list[str], size: int) -> Iterable[list[str]]:
    return (items[start : start + size] for start in range(0, len(items), size))
