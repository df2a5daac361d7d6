"""Storage v1: buckets. As on Supabase with no policies on buckets, only the service key may manage them."""

from __future__ import annotations

from typing import Any

import asyncpg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase import errors
from app.sandbox.supabase.objects import Objects, iso
from app.sandbox.supabase.project import SERVICE, Project
from app.sandbox.supabase.storage_routes import answering, json_body


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

    def _service_only(self, request: Request) -> None:
        if self._project.caller(request) is not SERVICE:
            raise errors.policy_denies()

    async def create(self, request: Request) -> Response:
        self._service_only(request)
        body = await json_body(request)
        name = str(body.get("name") or body.get("id") or "")
        if not name or len(name) > 100 or "/" in name:
            raise errors.bad_request("Bucket name is not valid")
        try:
            await self._project.pool.execute(
                "insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)"
                " values ($1, $1, $2, $3, $4)",
                name,
                bool(body.get("public", False)),
                body.get("file_size_limit"),
                body.get("allowed_mime_types"),
            )
        except asyncpg.UniqueViolationError:
            raise errors.bucket_exists() from None
        return JSONResponse({"name": name})

    async def list(self, request: Request) -> Response:
        if self._project.caller(request) is not SERVICE:
            return JSONResponse([])
        rows = await self._project.pool.fetch("select * from storage.buckets order by name")
        return JSONResponse([_bucket_json(row) for row in rows])

    async def get(self, request: Request) -> Response:
        if self._project.caller(request) is not SERVICE:
            raise errors.bucket_missing()
        name = request.path_params["bucket"]
        row = await self._project.pool.fetchrow("select * from storage.buckets where id = $1", name)
        if row is None:
            raise errors.bucket_missing()
        return JSONResponse(_bucket_json(row))

    async def update(self, request: Request) -> Response:
        self._service_only(request)
        body = await json_body(request)
        changed = await self._project.pool.fetchval(
            "update storage.buckets set public = coalesce($2, public), file_size_limit = $3,"
            " allowed_mime_types = $4, updated_at = now() where id = $1 returning id",
            request.path_params["bucket"],
            body.get("public"),
            body.get("file_size_limit"),
            body.get("allowed_mime_types"),
        )
        if changed is None:
            raise errors.bucket_missing()
        return JSONResponse({"message": "Successfully updated"})

    async def delete(self, request: Request) -> Response:
        self._service_only(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        try:
            await self._project.pool.execute("delete from storage.buckets where id = $1", bucket.id)
        except asyncpg.ForeignKeyViolationError:
            raise errors.bucket_not_empty() from None
        return JSONResponse({"message": "Successfully deleted"})

    async def empty(self, request: Request) -> Response:
        self._service_only(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        everything = await self._objects.below(SERVICE, bucket.id, "")
        await self._objects.remove(SERVICE, bucket.id, [found.name for found in everything])
        return JSONResponse(
            {"message": "Empty bucket has been queued. Completion may take up to an hour."},
        )


def _bucket_json(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "owner": row["owner_id"] or "",
        "public": row["public"],
        "type": "STANDARD",
        "file_size_limit": row["file_size_limit"],
        "allowed_mime_types": row["allowed_mime_types"],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
    }
