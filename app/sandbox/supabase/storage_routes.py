"""Storage v1: objects. Paths are below ``/supabase/storage/v1``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase.bodies import Upload, UploadBody
from app.sandbox.supabase.errors import StorageRefusal, access_denied, bucket_missing, object_missing
from app.sandbox.supabase.objects import Bucket, Objects, StoredObject, check_key, iso
from app.sandbox.supabase.project import SERVICE, Caller, Project
from app.sandbox.supabase.serving import described, serve
from app.sandbox.supabase.wire import Handler, answering, json_body, mapping, require, text, texts


class StorageRoutes:
    def __init__(self, project: Project, objects: Objects) -> None:
        self._project = project
        self._objects = objects

    def routes(self) -> list[Route]:
        """In the order in which they match: the fixed words before bucket names."""
        key = "{bucket}/{key:path}"
        table: list[tuple[str, str, Handler]] = [
            ("POST", "/object/copy", self.copy),
            ("POST", "/object/move", self.move),
            ("GET", f"/object/info/public/{key}", self.public_info),
            ("GET", f"/object/info/authenticated/{key}", self.info),
            ("GET", f"/object/info/{key}", self.info_of_either),
            ("GET", f"/object/public/{key}", self.public),
            ("GET", f"/object/authenticated/{key}", self.authenticated),
            ("GET", f"/object/{key}", self.download),
            ("POST", f"/object/{key}", self.upload),
            ("PUT", f"/object/{key}", self.replace),
            ("DELETE", f"/object/{key}", self.delete_one),
            ("DELETE", "/object/{bucket}", self.remove),
        ]
        routes = [Route(path, answering(handler), methods=[method]) for method, path, handler in table]
        for route in routes:
            if route.path.startswith("/object/info/public/") and route.methods is not None:
                route.methods.discard("HEAD")  # that is the bucket "public"
        return routes

    # --- writing --------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        return await self._store(request, overwrite=_upsert(request))

    async def replace(self, request: Request) -> Response:
        return await self._store(request, overwrite=True)

    async def _store(self, request: Request, *, overwrite: bool) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        key, upload = request.path_params["key"], await Upload.opened(request)
        stored = await self._objects.receive(caller, bucket, key, upload, overwrite=overwrite, owner=caller.user_id)
        return JSONResponse(_written(stored))

    async def remove(self, request: Request) -> Response:
        caller = self._project.caller(request)
        keys = texts(await json_body(request), "prefixes")
        gone = await self._objects.remove(caller, request.path_params["bucket"], keys)
        return JSONResponse([row.row_json() for row in gone])

    async def delete_one(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        if not await self._objects.is_there(bucket, key):
            raise object_missing()
        if not await self._objects.remove(caller, bucket, [key]):
            raise access_denied()
        return JSONResponse({"message": "Successfully deleted"})

    async def copy(self, request: Request) -> Response:
        caller = self._project.caller(request)
        body = await json_body(request)
        source, bucket, key = await self._ends(caller, body)
        described = UploadBody(
            content_type=source.metadata["mimetype"],
            cache_control=source.metadata["cacheControl"],
            metadata=source.user_metadata,
        )
        if body.get("copyMetadata") is False:
            given = mapping(body, "metadata")
            described.content_type = text(given, "mimetype", described.content_type)
            described.cache_control = text(given, "cacheControl", "no-cache")
            described.metadata = None
        stored = await self._objects.copy(caller, source, bucket, key, described, overwrite=_upsert(request))
        return JSONResponse({**_written(stored), **stored.row_json()})

    async def move(self, request: Request) -> Response:
        caller = self._project.caller(request)
        source, bucket, key = await self._ends(caller, await json_body(request))
        await self._objects.move(caller, source, bucket, key)
        return JSONResponse({"message": "Successfully moved"})

    async def _ends(self, caller: Caller, body: dict[str, Any]) -> tuple[StoredObject, Bucket, str]:
        """Where a copy or move starts and ends. Raises StorageRefusal."""
        require(body, "bucketId", "sourceKey", "destinationKey")
        source_bucket, key = text(body, "bucketId"), check_key(text(body, "destinationKey"))
        source = await self._objects.find(caller, source_bucket, text(body, "sourceKey"))
        target_bucket = await self._objects.related_bucket(text(body, "destinationBucket") or source_bucket)
        return source, target_bucket, key

    # --- reading --------------------------------------------------------------------------------------------

    async def download(self, request: Request) -> Response:
        bucket = await self._objects.bucket(request.path_params["bucket"])
        caller = SERVICE if bucket.public else self._reader(request)
        return serve(request, *await self._objects.open(caller, bucket.id, request.path_params["key"]))

    async def authenticated(self, request: Request) -> Response:
        self._project.caller(request)
        return await self.download(request)

    def _reader(self, request: Request) -> Caller:
        """To whoever proves nothing, a private bucket does not exist. Raises StorageRefusal."""
        try:
            return self._project.caller(request)
        except StorageRefusal as refusal:
            if refusal.status not in (400, 403):
                raise
            raise bucket_missing() from None

    async def public(self, request: Request) -> Response:
        bucket = await self._public_bucket(request)
        return serve(request, *await self._objects.open(SERVICE, bucket.id, request.path_params["key"]))

    async def _public_bucket(self, request: Request) -> Bucket:
        bucket = await self._objects.bucket(request.path_params["bucket"])
        if not bucket.public:
            raise bucket_missing()
        return bucket

    async def public_info(self, request: Request) -> Response:
        bucket = await self._public_bucket(request)
        return _info(await self._objects.find(SERVICE, bucket.id, request.path_params["key"]))

    async def info(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.bucket(request.path_params["bucket"])
        return _info(await self._objects.find(caller, bucket.id, request.path_params["key"]))

    async def info_of_either(self, request: Request) -> Response:
        self._reader(request)
        return await self.info(request)


def _upsert(request: Request) -> bool:
    return request.headers.get("x-upsert") == "true"


def _written(stored: StoredObject) -> dict[str, str]:
    return {"Key": f"{stored.bucket}/{stored.name}", "Id": stored.id}


def _info(found: StoredObject) -> Response:
    body = {
        "id": found.id,
        "name": found.name,
        "version": found.version,
        "bucket_id": found.bucket,
        "size": found.metadata["size"],
        "content_type": found.metadata["mimetype"],
        "cache_control": found.metadata["cacheControl"],
        "etag": found.metadata["eTag"],
        "metadata": found.user_metadata,
        "last_modified": found.metadata["lastModified"],
        "created_at": iso(found.created_at),
    }
    return JSONResponse(body, headers=described(found))


__all__ = ["StorageRoutes"]
