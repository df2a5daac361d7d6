"""Supabase Storage through the vendor's client, streamed both ways.

A connection can be dead without anybody knowing: Storage that refuses an upload early leaves the body unread and the
connection open, and answers nothing on it any more. So an upload has a connection of its own, which it closes, and the
repeat of a read has another one than the read.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import httpx
import structlog
from storage3.exceptions import StorageApiError
from storage3.types import SearchV2Options
from supabase import AsyncClient, AsyncSupabaseException, acreate_client
from supabase.lib.client_options import AsyncClientOptions

from app.config import Settings
from app.errors import ConfigurationError
from app.storage.base import (
    ContentTypeRefused,
    Limiter,
    ListedObject,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageDenied,
    StorageError,
    StorageUnavailable,
    check_key,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

_READ_TRIES = 3
_PAUSE_SECONDS = 0.2  # before the first repeat; doubled before the next
_BLOCK = 256 * 1024
_BUCKET_SECONDS = 60.0  # how long a bucket's visibility is remembered
_SIGNED_SECONDS = 300
_PAGE = 1000  # the most that Storage lists at a time
_REMOVED_AT_ONCE = 250  # keys of ours in less than the 64 kB that a refusal may leave unread
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0  # for a request without a file, repeats included, and for the beginning of a download
_FIRST_TRY = 0.4  # the part of it after which a try over a kept connection is given up
_SLOWEST_BYTES_PER_SECOND = 100_000  # a transfer that is slower for long is given up
_CONNECTIONS = 100
_PROBE = "makeit3d-doctor-probe-"  # buckets of that name are the doctor's own

# the ``error`` word of the body, where Storage itself says so; a 404 of a proxy or of an unknown route has others
_MISSING = frozenset({"not_found", "Not found", "Bucket not found", "NoSuchKey", "NoSuchBucket"})
_DENIED = frozenset({401, 403})
_BROKEN = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
_PASSING = frozenset({408, 423, 429})  # timeout, locked, too many: over soon


@dataclass(frozen=True, slots=True)
class Bucket:
    """``max_bytes`` and ``content_types`` bound its objects; None where the bucket itself sets no bound."""

    public: bool
    max_bytes: int | None
    content_types: frozenset[str] | None

    def takes(self, content_type: str) -> bool:
        """By the server's rule: exactly the type, or ``image/*`` for all pictures; no types at all are no bound."""
        group = f"{content_type.partition('/')[0]}/*"
        return not self.content_types or bool(self.content_types & {content_type, group})


@dataclass(frozen=True, slots=True)
class _Line:
    """The vendor's client over connections of one kind. ``silence`` is how long a download may bring nothing."""

    client: AsyncClient
    http: httpx.AsyncClient
    silence: float  # seconds

    @classmethod
    async def open(cls, settings: Settings, *, keep_alive: bool) -> _Line:
        answer = _answer_seconds(settings)
        http = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.supabase_timeout_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=None if keep_alive else 0),
            headers={} if keep_alive else {"Connection": "close"},
        )
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        service_key = settings.supabase_service_key.get_secret_value()
        try:
            client = await acreate_client(settings.supabase_url, service_key, options=options)
        except AsyncSupabaseException:
            await http.aclose()
            raise ConfigurationError("SUPABASE_URL or SUPABASE_SERVICE_KEY can not be used: look at both.") from None
        return cls(client, http, answer * _FIRST_TRY if keep_alive else answer)


class SupabaseStorage:
    """One per process; owns its HTTP connections until ``aclose``. Acts with the service key, above row security."""

    def __init__(self, kept: _Line, fresh: _Line, settings: Settings) -> None:
        self._kept = kept
        self._fresh = fresh
        self._timeout = settings.supabase_timeout_seconds
        self._answer = _answer_seconds(settings)
        self._base = f"{settings.supabase_url}/storage/v1"
        self._public: dict[str, tuple[float, bool]] = {}

    @classmethod
    async def open(cls, settings: Settings) -> SupabaseStorage:
        """No request is made. Raises ConfigurationError for an address or key that the client does not take."""
        kept = await _Line.open(settings, keep_alive=True)
        return cls(kept, await _Line.open(settings, keep_alive=False), settings)

    async def info(self, bucket: str, key: str) -> ObjectInfo:
        async def read(line: _Line) -> ObjectInfo:
            data = await line.client.storage.from_(bucket).info(key)
            return ObjectInfo(bucket, key, int(data["size"]), str(data["content_type"]), data["etag"])

        check_key(key)
        return await self._read(read)

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        check_key(key)
        seconds = self._transfer_seconds(max_bytes)
        try:
            # a try that hangs ends by its silence
            return await self._read(
                lambda line: self._download(line, bucket, key, target, max_bytes), seconds=seconds, first=seconds
            )
        except BaseException:
            _discard(target)
            raise

    async def _download(self, line: _Line, bucket: str, key: str, target: Path, max_bytes: int) -> ObjectInfo:
        # the client's own download holds the whole body; a signed URL lets us stream it
        async with asyncio.timeout(line.silence):
            url = await self._sign(line, bucket, key, _SIGNED_SECONDS)
        timeout = httpx.Timeout(line.silence, connect=_CONNECT_SECONDS)
        async with line.http.stream("GET", url, headers={"Accept-Encoding": "identity"}, timeout=timeout) as response:
            if response.status_code != HTTPStatus.OK:
                await response.aread()
                raise _error_of_response(response)
            declared = int(response.headers["content-length"])
            if declared > max_bytes:
                raise ObjectTooLarge(f"{declared} bytes", limiter=Limiter.CALLER, max_bytes=max_bytes)
            size = await _save(response, target, max_bytes)
            if size != declared:
                raise StorageUnavailable("the download was cut")
            content_type = response.headers.get("content-type", "application/octet-stream")
            return ObjectInfo(bucket, key, size, content_type, response.headers.get("etag"))

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str) -> None:
        check_key(key)
        size = (await asyncio.to_thread(source.stat)).st_size
        seconds = self._transfer_seconds(size)
        try:
            async with asyncio.timeout(seconds):
                # the client opens the path and streams it from disk
                await self._fresh.client.storage.from_(bucket).upload(
                    key, source, {"content-type": content_type, "upsert": "true"}
                )
        except TimeoutError:
            raise StorageUnavailable("the upload took too long") from None
        except StorageApiError as error:
            refusal = _error_of(error)
            raise await self._too_large(bucket, size) if isinstance(refusal, ObjectTooLarge) else refusal from None
        except _BROKEN as error:
            refusal = await self._unheard_refusal(bucket, size, content_type)
            raise refusal or StorageUnavailable(type(error).__name__) from None
        except httpx.HTTPError as error:
            raise StorageUnavailable(type(error).__name__) from None
        except (ValueError, KeyError, TypeError):
            raise StorageUnavailable("a reply that is not Storage's") from None

    async def _unheard_refusal(self, bucket: str, size: int, content_type: str) -> StorageError | None:
        """Why storage would not take the file: an answer that comes while the file is still being sent can get lost
        with the connection."""
        try:
            found = await self.bucket(bucket)
        except StorageUnavailable:
            return None
        except StorageError as refusal:
            return refusal
        if found.max_bytes is not None and size > found.max_bytes:
            return ObjectTooLarge(f"{size} bytes", limiter=Limiter.BUCKET, max_bytes=found.max_bytes)
        return None if found.takes(content_type) else ContentTypeRefused(content_type)

    async def _too_large(self, bucket: str, size: int) -> ObjectTooLarge:
        """Storage refused so many bytes without saying whose limit it was: the bucket knows its own, and nothing that
        can be asked knows the project's."""
        text = f"{size} bytes"
        try:
            limit = (await self.bucket(bucket)).max_bytes
        except StorageError:
            return ObjectTooLarge(text)
        if limit is not None and size > limit:
            return ObjectTooLarge(text, limiter=Limiter.BUCKET, max_bytes=limit)
        return ObjectTooLarge(text, limiter=Limiter.PROJECT)

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        removed: list[str] = []
        for start in range(0, len(keys), _REMOVED_AT_ONCE):
            page = list(keys[start : start + _REMOVED_AT_ONCE])

            async def remove_page(line: _Line, page: list[str] = page) -> list[str]:
                return [str(row["name"]) for row in await line.client.storage.from_(bucket).remove(page)]

            removed += await self._read(remove_page)
        return removed

    async def signed_url(self, bucket: str, key: str, *, seconds: int) -> str:
        check_key(key)
        return await self._read(lambda line: self._sign(line, bucket, key, seconds))

    async def _sign(self, line: _Line, bucket: str, key: str, seconds: int) -> str:
        answer = await line.client.storage.from_(bucket).create_signed_url(key, seconds)
        url = str(answer["signedURL"])
        if not _is_below(httpx.URL(url), httpx.URL(f"{self._base}/object/sign/")):
            raise StorageUnavailable("a signed URL of another place")
        return url

    def public_url(self, bucket: str, key: str) -> str:
        return str(httpx.URL(f"{self._base}/object/public/{bucket}/{key}"))

    async def is_public(self, bucket: str) -> bool:
        async def read(line: _Line) -> bool:
            return (await line.client.storage.get_bucket(bucket)).public

        known = self._public.get(bucket)
        if known is not None and time.monotonic() - known[0] < _BUCKET_SECONDS:
            return known[1]
        try:
            public = await self._read(read)
        except StorageUnavailable:
            if known is None:
                raise
            return known[1]
        self._public[bucket] = (time.monotonic(), public)
        return public

    async def bucket(self, name: str) -> Bucket:
        """What holds for the bucket's objects. Raises ObjectNotFound, StorageDenied, StorageUnavailable."""

        async def read(line: _Line) -> Bucket:
            found = await line.client.storage.get_bucket(name)
            types = found.allowed_mime_types
            return Bucket(found.public, found.file_size_limit, None if types is None else frozenset(types))

        return await self._read(read)

    async def project_allows(self, size: int) -> bool:
        """Whether the project's own limit lets objects of so many bytes in. Storage says it only when a bucket asks for
        more: one is made and removed at once, with those that a killed process left. Raises StorageError."""
        probe, storage = f"{_PROBE}{uuid4().hex}", self._fresh.client.storage
        try:
            async with asyncio.timeout(self._answer):
                for left in await storage.list_buckets():
                    if left.id.startswith(_PROBE):
                        with contextlib.suppress(StorageApiError):  # another doctor was quicker, or it is not empty
                            await storage.delete_bucket(left.id)
                try:
                    await storage.create_bucket(probe, options={"public": False, "file_size_limit": size})
                finally:  # also when the answer was lost
                    with contextlib.suppress(StorageApiError):
                        await storage.delete_bucket(probe)
        except StorageApiError as error:
            found = _error_of(error)
            if isinstance(found, ObjectTooLarge):
                return False
            raise found from None
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable(type(error).__name__) from None
        return True

    async def check(self, bucket: str) -> None:
        try:
            async with asyncio.timeout(self._answer):
                await self._fresh.client.storage.get_bucket(bucket)
        except StorageApiError as error:
            raise _error_of(error) from None
        except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError) as error:
            raise StorageUnavailable(type(error).__name__) from None

    async def list(self, bucket: str, *, prefix: str) -> AsyncIterator[ListedObject]:
        options: SearchV2Options = {"prefix": prefix, "limit": _PAGE, "with_delimiter": False}
        options["sortBy"] = {"column": "name", "order": "asc"}
        while True:
            page = await self._read(lambda line: line.client.storage.from_(bucket).list_v2(options))
            for item in page.objects:
                yield ListedObject(item.name, int((item.metadata or {}).get("size", 0)), item.updated_at.isoformat())
            if not page.hasNext:
                return
            if page.nextCursor is None:
                raise StorageUnavailable("a page without a cursor for the next")
            options["cursor"] = page.nextCursor

    async def aclose(self) -> None:
        await self._kept.http.aclose()
        await self._fresh.http.aclose()

    def _transfer_seconds(self, size: int) -> float:
        """How long a file of so many bytes may be under way."""
        return self._timeout + size / _SLOWEST_BYTES_PER_SECOND

    async def _read(
        self, call: Callable[[_Line], Awaitable[T]], *, seconds: float | None = None, first: float | None = None
    ) -> T:
        """Repeat what may be repeated, all of it within ``seconds``: over a kept connection for ``first`` seconds, then
        over fresh ones. Raises the errors of ``app.storage.base`` only."""
        patience = self._answer if seconds is None else seconds
        begun = time.monotonic()
        attempt = 1
        left = patience * _FIRST_TRY if first is None else first
        while True:
            try:
                async with asyncio.timeout(left):
                    return await call(self._kept if attempt == 1 else self._fresh)
            except TimeoutError:
                failure = StorageUnavailable("no answer in time")
            except StorageApiError as error:
                failure = _error_of(error)
            except StorageError as error:
                failure = error
            except httpx.HTTPError as error:
                failure = StorageUnavailable(type(error).__name__)
            except (ValueError, KeyError, TypeError):
                failure = StorageUnavailable("a reply that is not Storage's")
            left = patience - (time.monotonic() - begun)
            if attempt == _READ_TRIES or left <= 0 or not isinstance(failure, StorageUnavailable):
                raise failure
            log.info("storage_repeats", attempt=attempt, error=str(failure))
            await asyncio.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            attempt += 1


def _answer_seconds(settings: Settings) -> float:
    return min(settings.supabase_timeout_seconds, _ANSWER_SECONDS)


async def _save(response: httpx.Response, target: Path, max_bytes: int) -> int:
    """Write the body as it arrives; how many bytes it was. Raises ObjectTooLarge."""
    size = 0
    with target.open("wb") as sink:
        async for block in response.aiter_raw(_BLOCK):
            size += len(block)
            if size > max_bytes:
                raise ObjectTooLarge(f"more than {max_bytes} bytes", limiter=Limiter.CALLER, max_bytes=max_bytes)
            await asyncio.to_thread(sink.write, block)
    return size


def _discard(path: Path) -> None:
    path.unlink(missing_ok=True)


def _is_below(url: httpx.URL, base: httpx.URL) -> bool:
    same_site = (url.scheme, url.host, url.port, url.userinfo) == (base.scheme, base.host, base.port, base.userinfo)
    return same_site and url.path.startswith(base.path)


def _error_of(error: StorageApiError) -> StorageError:
    return _classify(str(error.status), str(error.code))


def _error_of_response(response: httpx.Response) -> StorageError:
    try:
        body = response.json()
        return _classify(str(body["statusCode"]), str(body["error"]))
    except (ValueError, KeyError, TypeError):
        return _classify(str(response.status_code), "InternalError")


def _classify(status: str, word: str) -> StorageError:
    """By the true status and the error word in the body: Storage answers HTTP 400 to almost everything."""
    number = int(status) if status.isdecimal() else 0
    text = f"{status[:3]} {word[:60]}"
    if number == HTTPStatus.NOT_FOUND and word in _MISSING:
        return ObjectNotFound(text)
    if number == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return ObjectTooLarge(text)
    if number == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return ContentTypeRefused(text)
    if number in _DENIED:
        return StorageDenied(text)
    if number in _PASSING or number >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return StorageUnavailable(text)
    return StorageError(text)
