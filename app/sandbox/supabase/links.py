"""Storage v1: signed URLs for downloads and uploads. A link carries its own right and can't be revoked."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.supabase.bodies import Upload
from app.sandbox.supabase.errors import bad_link, bad_request, wrong_link
from app.sandbox.supabase.keys import InvalidToken
from app.sandbox.supabase.objects import Objects
from app.sandbox.supabase.project import SERVICE, Project
from app.sandbox.supabase.serving import serve
from app.sandbox.supabase.wire import answering, json_body, require, texts, whole

_UPLOAD_LINK_SECONDS = 7200
_MOST_SECONDS = 10**11
_AT_MOST = 1000


class LinkRoutes:
    def __init__(self, project: Project, objects: Objects) -> None:
        self._project = project
        self._objects = objects

    def routes(self) -> list[Route]:
        key = "{bucket}/{key:path}"
        return [
            Route(f"/object/upload/sign/{key}", answering(self.sign_upload), methods=["POST"]),
            Route(f"/object/upload/sign/{key}", answering(self.upload), methods=["PUT"]),
            Route(f"/object/sign/{key}", answering(self.download), methods=["GET"]),
            Route(f"/object/sign/{key}", answering(self.sign), methods=["POST"]),
            Route("/object/sign/{bucket}", answering(self.sign_many), methods=["POST"]),
        ]

    async def sign(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        seconds = _seconds(await json_body(request))
        await self._objects.find(caller, bucket, key)
        return JSONResponse({"signedURL": self._link(bucket, key, seconds)})

    async def sign_many(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket, body = request.path_params["bucket"], await json_body(request)
        keys, seconds = texts(body, "paths", at_most=_AT_MOST), _seconds(body)
        async with self._project.acting_as(caller) as connection:
            rows = await connection.fetch(
                "select name from storage.objects where bucket_id = $1 and name = any($2::text[])", bucket, keys
            )
        visible = {row["name"] for row in rows}
        unseen = "Either the object does not exist or you do not have access to it"
        return JSONResponse(
            [
                {"error": None, "path": key, "signedURL": self._link(bucket, key, seconds)}
                if key in visible
                else {"error": unseen, "path": key, "signedURL": None}
                for key in keys
            ]
        )

    def _link(self, bucket: str, key: str, seconds: int) -> str:
        now = int(time.time())
        claims = {"url": f"{bucket}/{key}", "scope": "download", "iat": now, "exp": now + seconds}
        return f"/object/sign/{quote(bucket)}/{quote(key)}?token={self._project.keys.sign_link(claims)}"

    async def download(self, request: Request) -> Response:
        claims = self._claims(request, scope="download")
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        found, content = await self._objects.open(SERVICE, bucket, key)
        return serve(request, found, content, expires=int(claims["exp"]))

    async def sign_upload(self, request: Request) -> Response:
        caller = self._project.caller(request)
        bucket = await self._objects.related_bucket(request.path_params["bucket"])
        key, upsert = request.path_params["key"], request.headers.get("x-upsert") == "true"
        await self._objects.check_write(caller, bucket, key, overwrite=upsert)
        now = int(time.time())
        claims: dict[str, Any] = {"url": f"{bucket.id}/{key}", "upsert": upsert, "scope": "upload"}
        if caller.user_id is not None:
            claims["owner"] = caller.user_id
        token = self._project.keys.sign_link({**claims, "iat": now, "exp": now + _UPLOAD_LINK_SECONDS})
        url = f"/object/upload/sign/{quote(bucket.id)}/{quote(key)}?token={token}"
        return JSONResponse({"url": url, "token": token})

    async def upload(self, request: Request) -> Response:
        claims = self._claims(request, scope="upload")
        bucket = await self._objects.bucket(request.path_params["bucket"])
        key, upload = request.path_params["key"], await Upload.opened(request)
        stored = await self._objects.receive(
            SERVICE, bucket, key, upload, overwrite=bool(claims["upsert"]), owner=claims.get("owner")
        )
        return JSONResponse({"Key": f"{stored.bucket}/{stored.name}"})

    def _claims(self, request: Request, *, scope: str) -> dict[str, Any]:
        if "token" not in request.query_params:
            raise bad_request("querystring must have required property 'token'")
        try:
            claims = self._project.keys.read_link(request.query_params["token"])
        except InvalidToken as error:
            raise bad_link(str(error)) from None
        path = f"{request.path_params['bucket']}/{request.path_params['key']}"
        if claims.get("scope") != scope:
            raise wrong_link(f"Token is not scoped for {scope}")
        if claims.get("url") != path:
            raise wrong_link()
        return claims


def _seconds(body: dict[str, Any]) -> int:
    require(body, "expiresIn")
    return min(whole(body, "expiresIn", 0, at_least=1), _MOST_SECONDS)


__all__ = ["LinkRoutes"]
