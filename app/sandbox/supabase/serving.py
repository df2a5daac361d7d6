"""An object as an HTTP reply: headers, ranges, validators, blocks from disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import BinaryIO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.sandbox.supabase.errors import StorageRefusal, bad_range
from app.sandbox.supabase.objects import StoredObject

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_BLOCK = 256 * 1024
_LAST_SECOND = 253402300799  # of the year 9999


def serve(request: Request, found: StoredObject, content: BinaryIO, *, expires: int | None = None) -> Response:
    """The reply; it closes ``content``. ``expires`` is the end of a signed link in Unix seconds."""
    try:
        response = _head_only(request, found, expires)
    except StorageRefusal:
        content.close()
        raise
    if response.status_code == 304 or request.method == "HEAD":
        content.close()
        return response
    start, end = _range(request, _size(found))
    return StreamingResponse(_blocks(content, start, end), response.status_code, response.headers)


def _head_only(request: Request, found: StoredObject, expires: int | None) -> Response:
    headers = _headers(request, found, expires)
    if request.headers.get("if-none-match") == found.metadata["eTag"]:
        return Response(status_code=304, headers={**headers, "content-length": "0"})
    size = _size(found)
    if request.method == "HEAD" and expires is None:  # of ranges it knows nothing
        return Response(status_code=200, headers={**headers, "content-length": str(size)})
    start, end = _range(request, size)
    headers["content-length"] = str(end - start + 1)
    if "range" not in request.headers:
        return Response(status_code=200, headers=headers)
    headers["content-range"] = f"bytes {start}-{end}/{size}"
    return Response(status_code=206, headers=headers)


def _size(found: StoredObject) -> int:
    return int(found.metadata["size"])


def _headers(request: Request, found: StoredObject, expires: int | None) -> dict[str, str]:
    content_type = str(found.metadata["mimetype"])
    headers = {
        "accept-ranges": "bytes",
        # a page uploaded by a user must not run on the project's own origin
        "content-type": "text/plain" if content_type.startswith("text/html") else content_type,
        "x-robots-tag": "none",
        **described(found),
    }
    if expires is not None:
        del headers["cache-control"]
        headers["expires"] = format_datetime(datetime.fromtimestamp(min(expires, _LAST_SECOND), UTC), usegmt=True)
    elif request.headers.get("if-none-match", headers["etag"]) != headers["etag"]:
        headers["cache-control"] += ", stale-while-revalidate=30"
    if "download" in request.query_params:
        name = ",".join(request.query_params.getlist("download"))
        quoted = quote(name, safe="")
        headers["content-disposition"] = (
            f"attachment; filename={quoted}; filename*=UTF-8''{quoted}" if name else "attachment;"
        )
    return headers


def described(found: StoredObject) -> dict[str, str]:
    """Headers of an object, whatever is asked of it."""
    return {
        "etag": found.metadata["eTag"],
        "last-modified": format_datetime(found.updated_at.astimezone(UTC), usegmt=True),
        "cache-control": found.metadata["cacheControl"],
    }


def _range(request: Request, size: int) -> tuple[int, int]:
    """First and last byte; single ranges only. Raises StorageRefusal for what can't be served."""
    header = request.headers.get("range")
    if header is None:
        return 0, size - 1
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        raise bad_range()
    if match[1]:
        start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        start, end = max(0, size - int(match[2])), size - 1
    if start > end:
        raise bad_range()
    return start, end


async def _blocks(content: BinaryIO, start: int, end: int) -> AsyncGenerator[bytes]:
    with content:
        content.seek(start)
        left = end - start + 1
        while left > 0 and (block := await asyncio.to_thread(content.read, min(_BLOCK, left))):
            left -= len(block)
            yield block


__all__ = ["described", "serve"]
