"""Exchanges with Tripo's API: paid creates once, everything else with a few repeats; uploads from disk.

The key goes to the API's own address only.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import httpx
import structlog

from app.ai_clients.base import BeforeFirstByte, FileInput
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.http.bodies import BodyTooLarge, read_body
from app.ai_clients.http.client import free_client, guarded_client, paid_client
from app.ai_clients.http.failures import transport_failure, unreachable
from app.ai_clients.tripo.downloads import Hosts
from app.ai_clients.tripo.errors import TripoReply, free_failure, parse_reply, request_id
from app.ai_clients.tripo.settings import TripoSettings
from app.config import Settings
from app.errors import ErrorCode

log = structlog.get_logger(__name__)

_MAX_REPLY_BYTES = 8 * 1024 * 1024
_READ_SECONDS = 30.0  # for requests that only ask
_PRESIGN_ABOVE = 50 * 1024 * 1024
_MAX_IMAGE_BYTES = 20 * 1024 * 1024
_MAX_MODEL_BYTES = 150 * 1024 * 1024
_CHUNK = 256 * 1024

_AGAIN = frozenset({500, 502, 503, 504})
_ASK_AGAIN = _AGAIN | {429}


@dataclass(frozen=True, slots=True)
class Pace:
    """How free requests are repeated: ``tries`` in all, seconds between them doubling up to ``cap``."""

    tries: int = 3
    base: float = 0.5
    cap: float = 10.0

    def delay(self, attempt: int, asked: float | None) -> float:
        wanted = self.base * 2**attempt if asked is None else asked
        return min(self.cap, wanted) * random.uniform(0.75, 1.0)


class TripoApi:
    def __init__(self, settings: Settings, context: ssl.SSLContext, hosts: Hosts, pace: Pace) -> None:
        own = TripoSettings.of(settings)
        self.key = own.api_key.get_secret_value()
        self._base = own.base_url
        self._timeout = own.timeout_seconds
        self._context = context
        self._hosts = hosts
        self._pace = pace
        self._free = free_client(context, timeout_seconds=min(_READ_SECONDS, self._timeout))
        # uploads by signed link go to hosts that are not the API's: a client that never had its key or cookies
        self._elsewhere = guarded_client(context, timeout_seconds=self._timeout, loopback_too=hosts.are_local)

    async def create(self, path: str, body: Mapping[str, Any], *, before_first_byte: BeforeFirstByte) -> TripoReply:
        """Send one paid POST; whatever reply comes. Raises Refused or OutcomeUnknown when none comes."""
        failure: ProviderError
        paid = paid_client(self._context, timeout_seconds=self._timeout, before_first_byte=before_first_byte)
        try:
            async with asyncio.timeout(self._timeout), paid:
                return await self._exchange(paid, "POST", path, json=dict(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = transport_failure(error)
        except (TimeoutError, BodyTooLarge):
            failure = OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, "The provider did not answer in time.")
        # raised out here, so that the exception that holds the request and its key is not its context
        raise failure

    async def get(self, path: str, params: Mapping[str, int] | None = None) -> object:
        """The ``data`` of a free GET. Raises Refused."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: Mapping[str, Any]) -> object:
        """The ``data`` of a free POST that may be repeated. Raises Refused."""
        return await self._ask("POST", path, json=dict(body))

    async def _ask(self, method: str, path: str, **arguments: Any) -> object:  # noqa: ANN401 - passed on to httpx
        return await self._repeated(lambda: self._exchange(self._free, method, path, **arguments), _ASK_AGAIN)

    # --- uploads --------------------------------------------------------------------------------------------

    async def upload(self, file: FileInput, *, is_model: bool) -> str:
        """A fresh token for a file. Raises Refused."""
        size = await asyncio.to_thread(lambda: file.path.stat().st_size)
        limit = _MAX_MODEL_BYTES if is_model else _MAX_IMAGE_BYTES
        if size > limit:
            raise Refused(
                ErrorCode.PROVIDER_INPUT_REFUSED, f"The provider takes files of up to {limit // 2**20} MB only."
            )
        if size > _PRESIGN_ABOVE:
            return await self._upload_by_link(file, size)
        # a slow line to a tight quota: a refusal for its rate is not repeated here but waited for in the queue
        data = await self._repeated(lambda: self._upload_form(file), _AGAIN)
        return _text(data, "file_token")

    async def _upload_form(self, file: FileInput) -> TripoReply:
        opened = await asyncio.to_thread(file.path.open, "rb")
        with opened:
            parts = {"file": (file.filename, opened, file.content_type)}
            return await self._exchange(self._free, "POST", "/files", files=parts, timeout=self._timeout)

    async def _upload_by_link(self, file: FileInput, size: int) -> str:
        extension = file.path.suffix.lstrip(".") or file.filename.rpartition(".")[2]
        data = await self.post("/files/presign", {"format": extension or "glb"})
        link = _text(data, "presigned_url", "upload_url")
        token = _text(data, "file_token")
        url = self._hosts.check_upload(link)
        headers = {"Content-Type": file.content_type, "Content-Length": str(size)}

        async def put() -> TripoReply:
            async with self._elsewhere.stream("PUT", url, content=_chunks(file), headers=headers) as response:
                # the store's own words are no envelope: its status says it all
                return TripoReply(response.status_code, response.headers, {"code": 0} if response.is_success else None)

        await self._repeated(put, _AGAIN)
        return token

    # --- one exchange ---------------------------------------------------------------------------------------

    async def _repeated(self, exchange: Callable[[], Awaitable[TripoReply]], again: frozenset[int]) -> object:
        attempt = 0
        while True:
            failure: Refused
            try:
                reply = await exchange()
            except (httpx.HTTPError, httpx.InvalidURL, BodyTooLarge):
                failure = unreachable()
            else:
                if reply.succeeded:
                    return reply.data
                failure = free_failure(reply, api_key=self.key)
                if reply.status not in again:
                    raise failure
            attempt += 1
            if attempt >= self._pace.tries:
                raise failure
            await asyncio.sleep(self._pace.delay(attempt - 1, failure.retry_after))

    async def _exchange(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        **arguments: Any,  # noqa: ANN401
    ) -> TripoReply:
        trace = str(uuid4())
        headers = {"Authorization": f"Bearer {self.key}", "X-Tripo-Trace-ID": trace}
        reply: TripoReply | None = None
        try:
            async with client.stream(method, f"{self._base}{path}", headers=headers, **arguments) as response:
                content = await read_body(response, max_bytes=_MAX_REPLY_BYTES)
                reply = parse_reply(response.status_code, response.headers, content)
            return reply
        finally:
            # also of an exchange that broke: by this id the provider finds what became of it
            write = log.debug if client is self._free else log.info
            write(
                "tripo_exchange",
                path=path,
                status=None if reply is None else reply.status,
                code=None if reply is None else reply.code,
                tripo_trace_id=trace,
                tripo_request_id=None if reply is None else request_id(reply, api_key=self.key),
            )

    async def aclose(self) -> None:
        for client in (self._free, self._elsewhere):
            await client.aclose()


async def _chunks(file: FileInput) -> AsyncIterator[bytes]:
    opened = await asyncio.to_thread(file.path.open, "rb")
    with opened:
        while chunk := await asyncio.to_thread(opened.read, _CHUNK):
            yield chunk


def _text(data: object, *names: str) -> str:
    """The first of these fields that is there. Raises Refused when the reply has none: nothing was paid."""
    fields = cast("Mapping[str, object]", data) if isinstance(data, Mapping) else {}
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    raise Refused(ErrorCode.PROVIDER_UNAVAILABLE, "The provider's answer to an upload is not one.", advice=Advice.RETRY)
