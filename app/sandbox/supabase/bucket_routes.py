"""Storage v1: buckets. With no policies on ``storage.buckets``, as migrated, only the service key manages them."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase import errors
from app.sandbox.supabase.objects import Objects, check_bucket_name, iso
from app.sandbox.supabase.project import Project
from app.sandbox.supabase.wire import answering, flag, json_body, require, text, texts

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(b|kb|mb|gb)", re.IGNORECASE)
_UNITS = ("B", "KB", "MB", "GB")
_NOT_A_SIZE = (
    'body/file_size_limit must be integer, body/file_size_limit must pass "finite" keyword validation, '
    'body/file_size_limit must match pattern "^[0-9]+(?:\\.[0-9]+)?(?:[gG][bB]|[mM][bB]|[kK][bB]|[bB])$", '
    "body/file_size_limit must match a schema in anyOf"
)
_MIME_TYPE = re.compile(r"[a-zA-Z0-9+.-]+/[a-zA-Z0-9+.-]+(;\s*charset=[a-zA-Z0-9-]+)?|.*\*")
_COLUMNS = ("public", "file_size_limit", "allowed_mime_types")


class BucketRoutes:
    def __init__(self, project: Project, objects: Objects) -> None:
        self._project = project
        self._objects = objects

    def routes(self) -> list[Route]:
        return [
            Route("/bucket", answering(self.create), methods=["POST"]),
            Route("/bucket", answering(self.list), methods=["GET"]),
            Route("/bucket/{bucket}", answering(self.get), methods=["GET"]),
            Route("/bucket/{bucket}", answering(self.update), methods=["PUT"]),
            Route("/bucket/{bucket}", answering(self.delete), methods=["DELETE"]),
            Route("/bucket/{bucket}/empty", answering(self.empty), methods=["POST"]),
        ]

    async def create(self, request: Request) -> Response:
        caller = self._project.caller(request)
        body = await json_body(request)
        require(body, "name")
        name = check_bucket_name(text(body, "name"))
        bucket_id = check_bucket_name(text(body, "id") or name)
        given = self._properties(body)
        try:
            async with self._project.acting_as(caller) as connection:
                await connection.execute(
                    "insert into storage.buckets (id, name, owner_id, public, file_size_limit, allowed_mime_types)"
                    " values ($1, $2, $3, $4, $5, $6)",
                    bucket_id,
                    name,
                    caller.user_id,
                    given.get("public", False),
                    given.get("file_size_limit"),
                    given.get("allowed_mime_types"),
                )
        except asyncpg.UniqueViolationError:
            raise errors.bucket_exists() from None
        except asyncpg.InsufficientPrivilegeError:
            raise errors.policy_denies() from None
        return JSONResponse({"name": name})

    async def list(self, request: Request) -> Response:
        async with self._project.acting_as(self._project.caller(request)) as connection:
            rows = await connection.fetch("select * from storage.buckets order by name")
        return JSONResponse([_listed_json(row) for row in rows])

    async def get(self, request: Request) -> Response:
        return JSONResponse(_bucket_json(await self._visible(request)))

    async def update(self, request: Request) -> Response:
        body = await json_body(request)
        if not any(column in body for column in _COLUMNS):
            require(body, *_COLUMNS)
        before = await self._visible(request)
        after = {column: before[column] for column in _COLUMNS} | self._properties(body)
        async with self._project.acting_as(self._project.caller(request)) as connection:
            changed = await connection.fetchval(
                "update storage.buckets set public = $2, file_size_limit = $3, allowed_mime_types = $4,"
                " updated_at = now() where id = $1 returning id",
                before["id"],
                *(after[column] for column in _COLUMNS),
            )
        if changed is None:
            raise errors.bucket_missing()
        return JSONResponse({"message": "Successfully updated"})

    async def delete(self, request: Request) -> Response:
        bucket = await self._visible(request)
        try:
            async with self._project.acting_as(self._project.caller(request)) as connection:
                gone = await connection.fetchval("delete from storage.buckets where id = $1 returning id", bucket["id"])
        except asyncpg.ForeignKeyViolationError:
            raise errors.bucket_not_empty() from None
        if gone is None:
            raise errors.bucket_missing()
        return JSONResponse({"message": "Successfully deleted"})

    async def empty(self, request: Request) -> Response:
        caller = self._project.caller(request)
        if caller.role != "service_role":
            raise errors.role_refused()
        bucket = await self._visible(request)
        await self._objects.empty(caller, bucket["id"])
        return JSONResponse({"message": "Empty bucket has been queued. Completion may take up to an hour."})

    async def _visible(self, request: Request) -> asyncpg.Record:
        """The bucket of the path, if the caller may see it. Raises StorageRefusal."""
        async with self._project.acting_as(self._project.caller(request)) as connection:
            row = await connection.fetchrow(
                "select * from storage.buckets where id = $1", request.path_params["bucket"]
            )
        if row is None:
            raise errors.bucket_missing()
        return row

    def _properties(self, body: dict[str, Any]) -> dict[str, Any]:
        """The properties that a body names; null lifts a limit. Raises StorageRefusal."""
        given: dict[str, Any] = {}
        if (public := flag(body, "public")) is not None:
            given["public"] = public
        if "file_size_limit" in body:
            limit = _bytes(body["file_size_limit"])
            if limit is not None and limit > self._project.file_size_limit:
                raise errors.too_large()
            given["file_size_limit"] = limit
        if "allowed_mime_types" in body:
            given["allowed_mime_types"] = _mime_types(body)
        return given


def _mime_types(body: dict[str, Any]) -> list[str] | None:
    """An empty list allows everything, as null does; empty texts do not count."""
    if body["allowed_mime_types"] is None:
        return None
    types = [kind for kind in texts(body, "allowed_mime_types", at_least=0) if kind]
    for kind in types:
        if not _MIME_TYPE.fullmatch(kind):
            raise errors.mime_refused(kind)
    return types


def _bytes(value: object) -> int | None:
    """``1048576``, ``"1048576"`` or ``"1.5MB"`` of a million bytes; three digits of a text count."""
    if value is None:
        return None
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return round(float(f"{float(match[1]):.3g}") * 1000 ** _UNITS.index(match[2].upper()))
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            if (number := float(value)) >= 0 and number.is_integer():
                return int(value)
    raise errors.bad_request(_NOT_A_SIZE)


def _listed_json(row: asyncpg.Record) -> dict[str, Any]:
    return {**_bucket_json(row), "type": "STANDARD"}


def _bucket_json(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "owner": row["owner_id"] or "",
        "public": row["public"],
        "file_size_limit": row["file_size_limit"],
        "allowed_mime_types": row["allowed_mime_types"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }


__all__ = ["BucketRoutes"]
