"""Storage v1: objects. Paths are below ``/supabase/storage/v1``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.sandbox.supabase import errors
from app.sandbox.supabase.bodies import receive
from app.sandbox.supabase.errors import StorageRefusal
from app.sandbox.supabase.objects import Objects, StoredObject, check_key, iso, row_json
from app.sandbox.supabase.project import SERVICE, Caller, Project

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
_BLOCK = 256 * 1024
_UPLOAD_LINK_SECONDS = 7200
_LIST_CAP = 1500
_LIST_V2_CAP = 1000

Handler = Callable[[Request], Awaitable[Response]]


class StorageRoutes:
    def __init__(self, project: Project, objects: Objects) -> None:
        self._project = project
        self._objects = objects

    def routes(self) -> list[Route]:
        """In the order in which they match: the fixed words before bucket names."""
        key = "{bucket}/{key:path}"
        table: list[tuple[str, list[str], Handler]] = [
            ("/object/list/{bucket}", ["POST"], self.list_v1),
            ("/object/list-v2/{bucket}", ["POST"], self.list_v2),
            ("/object/copy", ["POST"], self.copy),
            ("/object/move", ["POST"], self.move),
            (f"/object/upload/sign/{key}", ["POST"], self.sign_upload),
            (f"/object/upload/sign/{key}", ["PUT"], self.signed_upload),
            (f"/object/sign/{key}", ["GET"], self.signed),
            (f"/object/sign/{key}", ["POST"], self.sign),
            ("/object/sign/{bucket}", ["POST"], self.sign_many),
            (f"/object/info/public/{key}", ["GET"], self.info),
            (f"/object/info/{key}", ["GET"], self.info),
            (f"/object/public/{key}", ["GET", "HEAD"], self.public),
            (f"/object/authenticated/{key}", ["GET", "HEAD"], self.download),
            (f"/object/{key}", ["GET", "HEAD"], self.download),
            (f"/object/{key}", ["POST"], self.upload),
            (f"/object/{key}", ["PUT"], self.replace),
            (f"/object/{key}", ["DELETE"], self.delete_one),
            ("/object/{bucket}", ["DELETE"], self.remove),
        ]
        return [Route(path, answering(handler), methods=methods) for path, methods, handler in table]

    # --- writing --------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        return await self._store(request, overwrite=request.headers.get("x-upsert", "").lower() == "true")

    async def replace(self, request: Request) -> Response:
        return await self._store(request, overwrite=True)

    async def _store(self, request: Request, *, overwrite: bool) -> Response:
        caller = self._project.caller(request)
        stored = await self._receive(request, caller, overwrite=overwrite)
        return JSONResponse({"Key": f"{stored.bucket}/{stored.name}", "Id": stored.id})

    async def _receive(self, request: Request, caller: Caller, *, overwrite: bool) -> StoredObject:
        bucket = await self._objects.bucket(request.path_params["bucket"])
        key = check_key(request.path_params["key"])
        async with self._objects.incoming(bucket.id) as path:
            body = await receive(request, path, max_bytes=bucket.limit)
            return await self._objects.store(caller, bucket, key, path, body, overwrite=overwrite)

    async def remove(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        prefixes = (await json_body(request)).get("prefixes", [])
        return JSONResponse(await self._objects.remove(caller, bucket.id, [str(key) for key in prefixes[:1000]]))

    async def delete_one(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        if not await self._objects.remove(caller, bucket.id, [request.path_params["key"]]):
            raise errors.object_missing()
        return JSONResponse({"message": "Successfully deleted"})

    async def copy(self, request: Request) -> Response:
        stored, _ = await self._copied(request)
        return JSONResponse({"Key": f"{stored.bucket}/{stored.name}", "Id": stored.id, **row_json(stored)})

    async def move(self, request: Request) -> Response:
        _, source = await self._copied(request)
        await self._objects.remove(self._project.caller(request), source.bucket, [source.name])
        return JSONResponse({"message": "Successfully moved"})

    async def _copied(self, request: Request) -> tuple[StoredObject, StoredObject]:
        caller = self._project.caller(request)
        body = await json_body(request)
        source_bucket = await self._objects.bucket(str(body.get("bucketId", "")))
        target_bucket = await self._objects.bucket(str(body.get("destinationBucket") or source_bucket.id))
        source = await self._objects.find(caller, source_bucket.id, str(body.get("sourceKey", "")))
        key = check_key(str(body.get("destinationKey", "")))
        overwrite = request.headers.get("x-upsert", "").lower() == "true"
        return await self._objects.copy(caller, source, target_bucket, key, overwrite=overwrite), source

    # --- reading --------------------------------------------------------------------------------------------

    async def download(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        seen_by = SERVICE if bucket.public else caller
        return await self._serve(request, await self._objects.find(seen_by, bucket.id, request.path_params["key"]))

    async def public(self, request: Request) -> Response:
        bucket = await self._objects.bucket(request.path_params["bucket"])
        if not bucket.public:
            raise errors.bucket_missing()
        return await self._serve(request, await self._objects.find(SERVICE, bucket.id, request.path_params["key"]))

    async def signed(self, request: Request) -> Response:
        path = f"{request.path_params['bucket']}/{request.path_params['key']}"
        claims = self._link_claims(request, path, scope="download")
        found = await self._objects.find(SERVICE, request.path_params["bucket"], request.path_params["key"])
        return await self._serve(request, found, expires=int(claims["exp"]))

    def _link_claims(self, request: Request, path: str, *, scope: str) -> dict[str, Any]:
        try:
            claims = self._project.keys.read_link(request.query_params.get("token", ""))
        except jwt.PyJWTError as error:
            raise errors.bad_link(str(error)) from None
        if claims.get("url") != path or claims.get("scope") != scope:
            raise errors.wrong_link()
        return claims

    async def info(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        found = await self._objects.find(caller, bucket.id, request.path_params["key"])
        return JSONResponse(
            {
                "id": found.id,
                "name": found.name,
                "version": found.version,
                "bucket_id": found.bucket,
                "size": found.size,
                "content_type": found.metadata["mimetype"],
                "cache_control": found.metadata["cacheControl"],
                "etag": found.metadata["eTag"],
                "metadata": found.user_metadata or {},
                "last_modified": found.metadata["lastModified"],
                "created_at": iso(found.created_at),
            }
        )

    async def _serve(self, request: Request, found: StoredObject, *, expires: int | None = None) -> Response:
        headers = _headers(request, found, expires)
        if request.headers.get("if-none-match") == found.metadata["eTag"]:
            return Response(status_code=304, headers=headers)
        start, end = _range(request.headers.get("range"), found.size)
        status = 200
        if request.headers.get("range"):
            status = 206
            headers["content-range"] = f"bytes {start}-{end}/{found.size}"
        headers["content-length"] = str(end - start + 1)
        if request.method == "HEAD":
            return Response(status_code=status, headers=headers)
        return StreamingResponse(_blocks(self._objects.path(found), start, end), status_code=status, headers=headers)

    # --- signing --------------------------------------------------------------------------------------------

    async def sign(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        await self._objects.bucket(bucket)
        await self._objects.find(caller, bucket, key)
        seconds = int((await json_body(request)).get("expiresIn", 60))
        return JSONResponse({"signedURL": self._link(bucket, key, seconds)})

    async def sign_many(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = request.path_params["bucket"]
        await self._objects.bucket(bucket)
        body = await json_body(request)
        seconds = int(body.get("expiresIn", 60))
        answers: list[dict[str, Any]] = []
        for key in [str(path) for path in body.get("paths", [])][:1000]:
            try:
                await self._objects.find(caller, bucket, key)
                answers.append({"error": None, "path": key, "signedURL": self._link(bucket, key, seconds)})
            except StorageRefusal:
                text = "Either the object does not exist or you do not have access to it"
                answers.append({"error": text, "path": key, "signedURL": None})
        return JSONResponse(answers)

    def _link(self, bucket: str, key: str, seconds: int) -> str:
        now = int(time.time())
        claims = {"url": f"{bucket}/{key}", "scope": "download", "iat": now, "exp": now + seconds}
        return f"/object/sign/{bucket}/{quote(key)}?token={self._project.keys.sign_link(claims)}"

    async def sign_upload(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, key = request.path_params["bucket"], check_key(request.path_params["key"])
        await self._objects.bucket(bucket)
        now = int(time.time())
        claims = {
            "url": f"{bucket}/{key}",
            "upsert": request.headers.get("x-upsert", "").lower() == "true",
            "scope": "upload",
            "owner": caller.user_id,
            "role": caller.role,
            "iat": now,
            "exp": now + _UPLOAD_LINK_SECONDS,
        }
        token = self._project.keys.sign_link(claims)
        return JSONResponse({"url": f"/object/upload/sign/{bucket}/{quote(key)}?token={token}", "token": token})

    async def signed_upload(self, request: Request) -> Response:
        path = f"{request.path_params['bucket']}/{request.path_params['key']}"
        claims = self._link_claims(request, path, scope="upload")
        role = claims["role"]
        caller = Caller(role, {"role": role, **({"sub": claims["owner"]} if claims["owner"] else {})})
        stored = await self._receive(request, caller, overwrite=bool(claims["upsert"]))
        return JSONResponse({"Key": f"{stored.bucket}/{stored.name}"})

    # --- listing --------------------------------------------------------------------------------------------

    async def list_v1(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        body = await json_body(request)
        folder = str(body.get("prefix") or "").strip("/")
        prefix = f"{folder}/" if folder else ""
        search = str(body.get("search") or "").lower()
        entries: dict[str, dict[str, Any]] = {}
        for found in await self._objects.below(caller, bucket.id, prefix):
            name, _, rest = found.name[len(prefix) :].partition("/")
            if search and search not in name.lower():
                continue
            entries[name] = _folder_entry(name) if rest else _entry(name, found)
        sort = body.get("sortBy") or {}
        ordered = sorted(
            entries.values(),
            key=lambda entry: str(entry.get(sort.get("column", "name")) or "").lower(),
            reverse=sort.get("order") == "desc",
        )
        offset, limit = int(body.get("offset") or 0), min(int(body.get("limit") or 100), _LIST_CAP)
        return JSONResponse(ordered[offset : offset + limit])

    async def list_v2(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        body = await json_body(request)
        prefix = str(body.get("prefix") or "")
        limit = min(int(body.get("limit") or _LIST_V2_CAP), _LIST_V2_CAP)
        page = await self._objects.below(caller, bucket.id, prefix, after=body.get("cursor"), limit=limit + 1)
        more, page = len(page) > limit, page[:limit]
        folders: dict[str, None] = {}
        objects: list[dict[str, Any]] = []
        for found in page:
            head, _, rest = found.name[len(prefix) :].partition("/")
            if body.get("with_delimiter") and rest:
                folders[f"{prefix}{head}/"] = None
            else:
                objects.append(_entry(found.name, found))
        answer: dict[str, Any] = {
            "hasNext": more,
            "folders": [{"name": name} for name in folders],
            "objects": objects,
        }
        if more:
            answer["nextCursor"] = page[-1].name
        return JSONResponse(answer)


def answering(handler: Handler) -> Handler:
    """Refusals become Storage's error bodies."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except StorageRefusal as refusal:
            return refusal.response()

    return answer


async def json_body(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body() or b"{}")
    except ValueError:
        raise errors.bad_request("Body is not valid JSON") from None
    if not isinstance(value, dict):
        raise errors.bad_request("Body must be an object")
    return value


def _headers(request: Request, found: StoredObject, expires: int | None) -> dict[str, str]:
    content_type = found.metadata["mimetype"]
    if content_type.startswith("text/html"):
        content_type = "text/plain"
    modified = parsedate_to_datetime(format_datetime(found.updated_at))
    headers = {
        "accept-ranges": "bytes",
        "content-type": content_type,
        "etag": found.metadata["eTag"],
        "last-modified": modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "x-robots-tag": "none",
    }
    if expires is None:
        headers["cache-control"] = found.metadata["cacheControl"]
    else:
        headers["expires"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(expires))
    if "download" in request.query_params:
        name = request.query_params["download"]
        headers["content-disposition"] = (
            f"attachment; filename={quote(name)}; filename*=UTF-8''{quote(name)}" if name else "attachment;"
        )
    return headers


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First and last byte. Raises StorageRefusal for what can not be served."""
    if not header:
        return 0, size - 1
    match = _RANGE.match(header)
    if match is None or not (match[1] or match[2]):
        raise errors.bad_range()
    if not match[1]:
        return max(0, size - int(match[2])), size - 1
    start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if start > end:
        raise errors.bad_range()
    return start, end


async def _blocks(path: Path, start: int, end: int) -> AsyncGenerator[bytes]:
    async with await anyio.open_file(path, "rb") as source:
        await source.seek(start)
        left = end - start + 1
        while left > 0 and (block := await source.read(min(_BLOCK, left))):
            left -= len(block)
            yield block


def _entry(name: str, found: StoredObject) -> dict[str, Any]:
    return {
        "name": name,
        "id": found.id,
        "updated_at": iso(found.updated_at),
        "created_at": iso(found.created_at),
        "last_accessed_at": iso(found.created_at),
        "metadata": found.metadata,
    }


def _folder_entry(name: str) -> dict[str, Any]:
    empty = ("id", "updated_at", "created_at", "last_accessed_at", "metadata")
    return {"name": name, **dict.fromkeys(empty)}


__all__ = ["StorageRoutes", "answering", "json_body"]
