"""Storage v1: both ways to list a bucket. Policies decide what a caller sees."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase.errors import bad_parameter, bad_request
from app.sandbox.supabase.objects import Objects, StoredObject
from app.sandbox.supabase.project import Project
from app.sandbox.supabase.wire import answering, flag, json_body, mapping, require, text, whole

_PAGE_CAP = 1500
_PAGE_CAP_V2 = 1000

# one folder level, case-insensitive; a name that goes on behind the next slash is a folder
_FOLDER = """
with below as (
  select o.*, split_part(substr(name, length($2) + 1), '/', 1) as entry,
    position('/' in substr(name, length($2) + 1)) > 0 as is_folder
  from storage.objects o where bucket_id = $1 and starts_with(lower(name), lower($2))
), entries as (
  select entry, is_folder, (array_agg(id))[1] as id, min({key}) as key
  from below where starts_with(lower(entry), lower($3))
  group by entry, is_folder, case when is_folder then null else id end
)
select e.entry, e.is_folder, o.* from entries e left join storage.objects o on o.id = e.id and not e.is_folder
order by {order} limit $4 offset $5
"""

# cursor paging over full keys, in byte order; by name this is a walk of the unique index
_PAGE = """
select name as entry, {column}::text as key, o.* from storage.objects o
where bucket_id = $1 and starts_with(name, $2)
  and ($3::text is null or ({column}, name) {beyond} ($4::text::{type}, $3::text collate "C"))
order by {column} {order}, name {order} limit $5
"""

# the same with a folder standing for everything below it
_PAGE_OF_FOLDERS = """
with below as (
  select *, case when position('/' in substr(name, length($2) + 1)) > 0
    then $2 || split_part(substr(name, length($2) + 1), '/', 1) || '/' else name end collate "C" as entry
  from storage.objects where bucket_id = $1 and starts_with(name, $2)
), entries as (
  select entry, min({column}) as key from below group by entry
)
select e.entry, e.key::text as key, o.* from entries e
left join storage.objects o on o.bucket_id = $1 and o.name = e.entry
where $3::text is null or (e.key, e.entry) {beyond} ($4::text::{type}, $3::text collate "C")
order by e.key {order}, e.entry {order} limit $5
"""


class ListRoutes:
    def __init__(self, project: Project, objects: Objects) -> None:
        self._project = project
        self._objects = objects

    def routes(self) -> list[Route]:
        return [
            Route("/object/list/{bucket}", answering(self.folder), methods=["POST"]),
            Route("/object/list-v2/{bucket}", answering(self.page), methods=["POST"]),
        ]

    async def folder(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, body = request.path_params["bucket"], await json_body(request)
        require(body, "prefix")
        folder = text(body, "prefix").rstrip("/")
        column, order = _sort(body, ("name", "updated_at", "created_at", "last_accessed_at"))
        key = "lower(name)" if column == "name" else column
        by = f"lower(e.entry) {order}" if column == "name" else f"e.is_folder desc, e.key {order}, lower(e.entry)"
        sql = _FOLDER.format(key=key, order=f"{by}, e.entry, e.is_folder")
        limit, offset = _bounded(body, _PAGE_CAP, default=100), whole(body, "offset", 0, at_least=0)
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(
                sql, bucket, f"{folder}/" if folder else "", text(body, "search"), limit, offset
            )
        return JSONResponse(
            [
                _folder_json(row["entry"]) if row["is_folder"] else _object_json(row["entry"], StoredObject.of(row))
                for row in rows
            ]
        )

    async def page(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, body = request.path_params["bucket"], await json_body(request)
        folders = flag(body, "with_delimiter") is True
        column, order = _sort(body, ("name", "updated_at", "created_at"))
        template = _PAGE_OF_FOLDERS if folders else _PAGE
        sql = template.format(
            column=column,
            order=order,
            beyond=">" if order == "asc" else "<",
            type='text collate "C"' if column == "name" else "timestamptz",
        )
        limit = _bounded(body, _PAGE_CAP_V2, default=_PAGE_CAP_V2)
        prefix = text(body, "prefix")
        after_entry, after_key = _read_cursor(body)
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(sql, bucket, prefix, after_entry, after_key, limit + 1)
        page, skipped = rows[:limit], prefix.rpartition("/")[0]
        skip = len(skipped) + 1 if skipped else 0

        def entry(row: asyncpg.Record, shown: dict[str, Any]) -> dict[str, Any]:
            return {**shown, "key": row["entry"][skip:].rstrip("/")} if folders else shown

        answer: dict[str, Any] = {
            "hasNext": len(rows) > limit,
            "folders": [entry(row, _folder_json(row["entry"])) for row in page if row["id"] is None],
            "objects": [
                entry(row, _object_json(row["entry"], StoredObject.of(row))) for row in page if row["id"] is not None
            ],
        }
        if answer["hasNext"]:
            answer["nextCursor"] = _cursor(page[-1]["entry"], page[-1]["key"])
            answer["nextCursorKey"] = page[-1]["entry"]
        return JSONResponse(answer)


def _sort(body: dict[str, Any], columns: tuple[str, ...]) -> tuple[str, str]:
    wanted = mapping(body, "sortBy")
    column, order = wanted.get("column") or "name", wanted.get("order") or "asc"
    for name, value, allowed in (("column", column, columns), ("order", order, ("asc", "desc"))):
        if value not in allowed:
            raise bad_request(f"body/sortBy/{name} must be equal to one of the allowed values")
    return str(column), str(order)


def _bounded(body: dict[str, Any], cap: int, *, default: int) -> int:
    return min(whole(body, "limit", default, at_least=1), cap)


def _cursor(entry: str, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([entry, key]).encode()).decode()


def _read_cursor(body: dict[str, Any]) -> tuple[str | None, str | None]:
    raw = text(body, "cursor")
    if not raw:
        return None, None
    try:
        value = json.loads(base64.urlsafe_b64decode(raw))
    except ValueError:
        raise bad_parameter("Invalid Parameter continuation token") from None
    match cast("object", value):
        case [str(entry), str(key)]:
            return entry, key
        case _:
            raise bad_parameter("Invalid Parameter continuation token")


def _object_json(name: str, found: StoredObject) -> dict[str, Any]:
    return {"name": name, "id": found.id, **found.times(), "metadata": found.metadata or None}


def _folder_json(name: str) -> dict[str, Any]:
    empty = ("id", "updated_at", "created_at", "last_accessed_at", "metadata")
    return {"name": name, **dict.fromkeys(empty)}


__all__ = ["ListRoutes"]
