"""Easel paints pictures from words: a polled provider in one file."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

import httpx
from app.ai_clients.base import (
    BeforeFirstByte,
    Capability,
    DownloadedFile,
    Estimate,
    ImageRequest,
    PreparedCall,
    ProviderTask,
    ProviderTaskState,
    Request,
)
from app.ai_clients.errors import Advice, OutcomeUnknown, Refused
from app.ai_clients.http.bodies import save_body
from app.ai_clients.http.client import free_client, guarded_client, paid_client
from app.ai_clients.http.failures import retry_after_seconds, transport_failure, unreachable
from app.ai_clients.limits import Limits
from app.ai_clients.spec import Observation, ProviderSettings, ProviderSpec, Trouble
from app.config import Key, ServiceAddress, Settings
from app.domain.sniff import HEAD_BYTES, sniff
from app.errors import ErrorCode
from pydantic import BaseModel, Field

PRICE_VERSION = "2026-11-28"
_MICROS_PER_PICTURE = 20_000


class EaselSettings(ProviderSettings):
    prefix: ClassVar[str] = "easel"

    api_key: Key = Field(alias="EASEL_API_KEY")
    base_url: ServiceAddress = Field("https://api.easel.example/v1", alias="EASEL_BASE_URL")
    timeout_seconds: float = Field(60.0, alias="BFF_EASEL_TIMEOUT_SECONDS", gt=0)
    requests_per_minute: int | None = Field(30, alias="BFF_EASEL_REQUESTS_PER_MINUTE", ge=1)
    slots: int = Field(4, alias="BFF_EASEL_SLOTS", ge=1)

    def pools(self) -> Mapping[str, int]:
        return {"easel": self.slots}


class _Options(BaseModel):
    size: Literal["512x512", "1024x1024"] | None = None


CAPABILITIES: Mapping[Capability, Limits] = {Capability.TEXT_TO_IMAGE: Limits(500, _Options)}


class Easel:
    name = "easel"
    capabilities = CAPABILITIES
    poll_seconds = 2.0

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        own = EaselSettings.of(settings)
        self.timeout_seconds = own.timeout_seconds
        self._base = own.base_url
        self._headers = {"Authorization": f"Bearer {own.api_key.get_secret_value()}"}
        self._context = context
        self._free = free_client(context, timeout_seconds=30)
        # they never get the key
        self._links = guarded_client(context, timeout_seconds=30, loopback_too=settings.is_sandbox)

    def pool(self, request: Request) -> str:  # noqa: ARG002 - one pool for all
        return "easel"

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:  # noqa: ARG002 - words only
        return Estimate(_wanted(request).n * _MICROS_PER_PICTURE, PRICE_VERSION)

    async def prepare(self, request: Request) -> PreparedCall:
        wanted = _wanted(request)
        tag = uuid4().hex  # by which a call whose answer is lost is found again
        body = {"prompt": wanted.prompt, "count": wanted.n, "size": wanted.size or "1024x1024", "tag": tag}
        return PreparedCall(wanted.capability, "/paintings", body, {"tag": tag})

    async def send(self, call: PreparedCall, *, before_first_byte: BeforeFirstByte) -> str:
        client = paid_client(self._context, timeout_seconds=self.timeout_seconds, before_first_byte=before_first_byte)
        try:
            async with client:
                reply = await client.post(f"{self._base}{call.path}", json=dict(call.body), headers=self._headers)
        except httpx.HTTPError as error:
            failure = transport_failure(error)
        else:
            if reply.status_code == HTTPStatus.CREATED:
                return str(reply.json()["id"])
            failure = _refusal(reply)
        raise failure

    async def poll(self, task_ids: Sequence[str]) -> Mapping[str, ProviderTask]:
        listed = {painting["id"]: painting for painting in await self._paintings({"ids": ",".join(task_ids)})}
        return {task_id: _task(task_id, listed.get(task_id)) for task_id in task_ids}

    async def find_submitted(
        self, fingerprint: Mapping[str, Any], *, since: datetime, known_ids: frozenset[str]
    ) -> Sequence[str]:
        found = await self._paintings({"tag": fingerprint["tag"], "since": since.isoformat()})
        return [painting["id"] for painting in found if painting["id"] not in known_ids]

    async def download(self, url: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        try:
            async with self._links.stream("GET", url) as response:
                if response.status_code != HTTPStatus.OK:
                    raise unreachable(http_status=response.status_code)
                saved = await save_body(
                    response.aiter_bytes(), target, max_bytes=max_bytes, head_bytes=HEAD_BYTES, durable=False
                )
        except httpx.HTTPError:
            raise unreachable() from None
        content_type = sniff(saved.head)
        if content_type is None:
            raise Refused(ErrorCode.PROVIDER_RESULT_INVALID, "The provider delivered no picture.")
        return DownloadedFile(target, content_type, saved.size, hashlib.sha256(target.read_bytes()).hexdigest())

    async def _paintings(self, asked: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        try:
            reply = await self._free.get(f"{self._base}/paintings", params=asked, headers=self._headers)
        except httpx.HTTPError:
            raise unreachable() from None
        if not reply.is_success:
            raise unreachable(retry_after_seconds(reply.headers), reply.status_code)
        return reply.json()["paintings"]

    async def aclose(self) -> None:
        await self._free.aclose()
        await self._links.aclose()


def _wanted(request: Request) -> ImageRequest:
    if isinstance(request, ImageRequest):
        return request
    raise Refused(ErrorCode.PROVIDER_REQUEST_REFUSED, "Easel paints pictures only.")


def _refusal(reply: httpx.Response) -> Refused | OutcomeUnknown:
    """By status alone: a body may quote the prompt."""
    match reply.status_code:
        case 401 | 402:
            detail = "The gateway's account at the provider does not work."
            return Refused(ErrorCode.PROVIDER_KEY_REJECTED, detail, advice=Advice.CONFIGURATION)
        case 429:
            after = retry_after_seconds(reply.headers)
            detail = "The provider asks us to slow down."
            return Refused(ErrorCode.PROVIDER_RATE_LIMITED, detail, advice=Advice.DEFER, retry_after=after)
        case 422:
            return Refused(ErrorCode.PROVIDER_REQUEST_REFUSED, "The provider refused the request.")
        case status:
            detail = "The provider may have taken the request."
            return OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, detail, http_status=status)


def _task(task_id: str, painting: Mapping[str, Any] | None) -> ProviderTask:
    if painting is None:
        return ProviderTask(task_id, ProviderTaskState.MISSING)
    match painting["state"]:
        case "dry":
            urls = tuple(painting["urls"])
            cost = len(urls) * _MICROS_PER_PICTURE
            return ProviderTask(task_id, ProviderTaskState.SUCCEEDED, 100, urls, cost_micros=cost)
        case "ruined":
            error = ErrorCode.PROVIDER_TASK_FAILED
            return ProviderTask(task_id, ProviderTaskState.FAILED, cost_micros=0, error=error)
        case _:
            return ProviderTask(task_id, ProviderTaskState.RUNNING, painting.get("progress"))


async def _check(settings: Settings) -> Sequence[Observation]:
    own = EaselSettings.of(settings)
    headers = {"Authorization": f"Bearer {own.api_key.get_secret_value()}"}
    async with httpx.AsyncClient(timeout=8, headers=headers) as client:
        reply = await client.get(f"{own.base_url}/account")
    if reply.is_success:
        return [Observation("easel: the account works")]
    return [Observation(f"easel answered {reply.status_code}", Trouble.PROVIDER_KEY_REFUSED)]


EASEL = ProviderSpec(
    name="easel",
    settings=EaselSettings,
    capabilities=CAPABILITIES,
    price_version=PRICE_VERSION,
    build=Easel,
    check=_check,
)
