"""Supabase Storage through the vendor's client, streamed both ways."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import httpx
import structlog
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, acreate_client
from supabase.lib.client_options import AsyncClientOptions

from app.config import Settings
from app.storage.base import (
    ListedObject,
    ObjectExists,
    ObjectInfo,
    ObjectNotFound,
    ObjectTooLarge,
    StorageError,
    StorageUnavailable,
)

log = structlog.get_logger(__name__)

T = TypeVar("T")

_READ_TRIES = 3
_BLOCK = 256 * 1024
_BUCKET_SECONDS = 60.0
_SIGNED_SECONDS = 300


class SupabaseStorage:
    def __init__(self, client: AsyncClient, http: httpx.AsyncClient, base_url: str, service_key: str) -> None:
        self._client = client
        self._headers = {"apikey": service_key, "Authorization": f"Bearer {service_key}"}
        self._http = http
        self._base = f"{base_url}/storage/v1"
        self._public: dict[str, tuple[float, bool]] = {}

    @classmethod
    async def open(cls, settings: Settings) -> SupabaseStorage:
        timeout = httpx.Timeout(settings.supabase_timeout_seconds, connect=5)
        http = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=100))
        options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        service_key = settings.supabase_service_key.get_secret_value()
        client = await acreate_client(settings.supabase_url, service_key, options=options)
        return cls(client, http, settings.supabase_url, service_key)

    async def info(self, bucket: str, key: str) -> ObjectInfo:
        data: dict[str, Any] = await self._read(lambda: self._client.storage.from_(bucket).info(key))
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size=int(data.get("size") or 0),
            content_type=str(data.get("content_type") or "application/octet-stream"),
            etag=data.get("etag"),
        )

    async def download(self, bucket: str, key: str, target: Path, *, max_bytes: int) -> ObjectInfo:
        return await self._read(lambda: self._download(bucket, key, target, max_bytes))

    async def _download(self, bucket: str, key: str, target: Path, max_bytes: int) -> ObjectInfo:
        url = await self._sign(bucket, key, _SIGNED_SECONDS)
        async with self._http.stream("GET", url) as response:
            if response.is_error:
                await response.aread()
                raise _error_of_response(response)
            declared = int(response.headers.get("content-length", -1))
            if declared > max_bytes:
                raise ObjectTooLarge(f"{declared} bytes")
            size = 0
            with target.open("wb") as sink:
                async for block in response.aiter_bytes(_BLOCK):
                    size += len(block)
                    if size > max_bytes:
                        raise ObjectTooLarge(f"more than {max_bytes} bytes")
                    await asyncio.to_thread(sink.write, block)
            if declared >= 0 and size != declared:
                raise StorageUnavailable("the download was cut")
            return ObjectInfo(
                bucket=bucket,
                key=key,
                size=size,
                content_type=response.headers.get("content-type", "application/octet-stream"),
                etag=response.headers.get("etag"),
            )

    async def upload(self, bucket: str, key: str, source: Path, *, content_type: str, overwrite: bool = False) -> None:
        options = {"content-type": content_type, "upsert": "true" if overwrite else "false"}
        try:
            # the client opens the path and streams it from disk
            await self._client.storage.from_(bucket).upload(key, source, options)  # pyright: ignore[reportArgumentType]
        except StorageApiError as error:
            raise _error_of(error) from None
        except httpx.HTTPError as error:
            raise StorageUnavailable(type(error).__name__) from None

    async def remove(self, bucket: str, keys: Sequence[str]) -> list[str]:
        rows: list[dict[str, Any]] = await self._read(lambda: self._client.storage.from_(bucket).remove(list(keys)))
        return [str(row["name"]) for row in rows]

    async def signed_url(self, bucket: str, key: str, *, seconds: int) -> str:
        return await self._read(lambda: self._sign(bucket, key, seconds))

    async def _sign(self, bucket: str, key: str, seconds: int) -> str:
        answer = await self._client.storage.from_(bucket).create_signed_url(key, seconds)
        url = str(answer["signedURL"])
        if not url.startswith(f"{self._base}/"):
            raise StorageUnavailable("a signed URL of another host")
        return url

    def public_url(self, bucket: str, key: str) -> str:
        return f"{self._base}/object/public/{bucket}/{key}"

    async def is_public(self, bucket: str) -> bool:
        known = self._public.get(bucket)
        if known is not None and time.monotonic() - known[0] < _BUCKET_SECONDS:
            return known[1]
        found = await self._read(lambda: self._client.storage.get_bucket(bucket))
        self._public[bucket] = (time.monotonic(), bool(found.public))
        return bool(found.public)

    async def list(self, bucket: str, *, prefix: str) -> AsyncIterator[ListedObject]:
        cursor: str | None = None
        while True:
            body: dict[str, Any] = {"prefix": prefix, "limit": 1000, "with_delimiter": False}
            if cursor is not None:
                body["cursor"] = cursor
            page: Any = await self._read(lambda body=body: self._list_page(bucket, body))
            for item in page["objects"]:
                metadata = item.get("metadata") or {}
                yield ListedObject(item["name"], int(metadata.get("size") or 0), str(item["updated_at"]))
            if not page["hasNext"]:
                return
            cursor = page["nextCursor"]

    async def _list_page(self, bucket: str, body: dict[str, Any]) -> Any:  # noqa: ANN401 - Storage's JSON
        url = f"{self._base}/object/list-v2/{bucket}"
        response = await self._http.post(url, json=body, headers=self._headers)
        if response.is_error:
            raise _error_of_response(response)
        return response.json()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat what may be repeated; the errors of ``app.storage.base``."""
        for attempt in range(_READ_TRIES):
            try:
                return await call()
            except StorageApiError as error:
                failure = _error_of(error)
            except StorageError as error:
                failure = error
            except httpx.HTTPError as error:
                failure = StorageUnavailable(type(error).__name__)
            if not isinstance(failure, StorageUnavailable) or attempt == _READ_TRIES - 1:
                raise failure
            await asyncio.sleep(0.2 * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError  # pragma: no cover - the loop returns or raises


def _error_of(error: StorageApiError) -> StorageError:
    return _classify(str(error.status), str(error.code))


def _error_of_response(response: httpx.Response) -> StorageError:
    try:
        body = response.json()
        return _classify(str(body["statusCode"]), str(body["error"]))
    except (ValueError, KeyError, TypeError):
        return _classify(str(response.status_code), "")


def _classify(status: str, code: str) -> StorageError:
    """By the true status in the body: Storage answers HTTP 400 to almost everything."""
    match status:
        case "404":
            return ObjectNotFound(code)
        case "409":
            return ObjectExists(code)
        case "413":
            return ObjectTooLarge(code)
        case "429" | "500" | "502" | "503" | "504" | "520" | "544":
            return StorageUnavailable(f"{status} {code}")
        case _ if status.isdigit() and int(status) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return StorageUnavailable(f"{status} {code}")
        case _:
            return StorageError(f"{status} {code}")
