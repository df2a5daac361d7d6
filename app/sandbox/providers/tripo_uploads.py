"""Uploads: multipart through the API, or a signed PUT for large files."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.providers.links import Links
from app.sandbox.providers.tripo_calls import Asked, TripoCalls
from app.sandbox.providers.tripo_files import IMAGE_BYTES, MODEL_BYTES, Files, kind_of, sniff_file
from app.sandbox.providers.tripo_refusals import TripoRefusal, bad_parameter

_PUT_SECONDS = 1800
_FORMATS = {
    **dict.fromkeys(("jpg", "jpeg"), "image/jpeg"),
    "png": "image/png",
    "webp": "image/webp",
    "glb": "model/gltf-binary",
    "stl": "model/stl",
    "obj": "model/obj",
}


class TripoUploads:
    def __init__(self, calls: TripoCalls, files: Files, links: Links) -> None:
        self._calls = calls
        self._files = files
        self._links = links

    def routes(self) -> list[Route]:
        return [
            Route("/files", self._calls.answering(self.upload), methods=["POST"]),
            Route("/files/presign", self._calls.answering(self.presign), methods=["POST"]),
            Route("/files/upload-credentials", self._calls.answering(_credentials), methods=["POST"]),
        ]

    async def upload(self, asked: Asked) -> Response:
        fault = self._calls.take(asked, "tripo.upload")
        answer = await self._calls.struck(asked, fault)
        if answer is not None:
            return answer
        self._calls.enter(asked, "upload", asked.knobs.uploads_per_minute)
        if not asked.request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise TripoRefusal(415, 1003, "The content type must be multipart/form-data")
        token = self._files.new_token()
        path = self._files.path(token)
        try:
            async with asked.request.form(max_files=1, max_fields=10) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise TripoRefusal(400, 2019, "The file is missing")
                _check_size(file.size or 0, file.content_type or "")
                await asyncio.to_thread(_save, file, path)
        except HTTPException as error:
            raise TripoRefusal(400, 1003, str(error.detail)) from None
        try:
            content_type = _checked_type(path)
        except TripoRefusal:
            path.unlink()
            raise
        if fault is None or fault.kind != "token_lost":
            self._files.add(token, asked.account.id, content_type)
        return asked.success({"file_token": token})

    async def presign(self, asked: Asked) -> Response:
        answer = await self._calls.struck(asked, self._calls.take(asked, "tripo.upload"))
        if answer is not None:
            return answer
        self._calls.enter(asked, "upload", asked.knobs.uploads_per_minute)
        body, _ = await asked.json()
        content_type = _FORMATS.get(str(body.get("format", "")).lower())
        if content_type is None:
            raise bad_parameter(f"format must be one of {', '.join(sorted(_FORMATS))}")
        token = self._files.new_token()
        self._files.expect(token, asked.account.id, content_type)
        url = self._links.make("put", token, _PUT_SECONDS)
        return asked.success({asked.knobs.presign_word: url, "file_token": token, "expires_in": _PUT_SECONDS})

    async def put(self, request: Request) -> Response:
        """The bytes of a presigned upload. As a storage would, it wants no API key beside the signature."""
        token = request.path_params["token"]
        if not self._links.is_good("put", token, request.url.query) or not self._files.is_expected(token):
            return Response("<Error><Code>AccessDenied</Code></Error>", 403, media_type="application/xml")
        if request.headers.get("authorization"):
            return Response("<Error><Code>InvalidArgument</Code></Error>", 400, media_type="application/xml")
        part = self._files.path(f"{token}.part")
        size = 0
        with part.open("wb") as sink:
            async for block in request.stream():
                size += len(block)
                if size > MODEL_BYTES:
                    break
                sink.write(block)
        if not 0 < size <= MODEL_BYTES:
            part.unlink()
            return Response("<Error><Code>EntityTooLarge</Code></Error>", 400, media_type="application/xml")
        part.replace(self._files.path(token))
        self._files.arrived(token, sniff_file(self._files.path(token)))
        return Response(status_code=200)


def _check_size(size: int, content_type: str) -> None:
    if size == 0:
        raise TripoRefusal(400, 2003, "The file is empty")
    if size > MODEL_BYTES:
        raise TripoRefusal(413, 2022, "The file is too large")
    if content_type.startswith("image/") and size > IMAGE_BYTES:
        raise TripoRefusal(413, 2021, "The image is too large")


def _checked_type(path: Path) -> str:
    content_type = sniff_file(path)
    if kind_of(content_type) == "unknown":
        raise TripoRefusal(400, 2004, "The file type is not supported")
    if kind_of(content_type) == "picture" and path.stat().st_size > IMAGE_BYTES:
        raise TripoRefusal(413, 2021, "The image is too large")
    return content_type


def _save(file: UploadFile, target: Path) -> None:
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as sink:
        shutil.copyfileobj(file.file, sink, 1024 * 1024)
    part.replace(target)


async def _credentials(asked: Asked) -> Response:
    """The vendor hands out credentials of its object store here; the sandbox has none to hand out."""
    del asked
    raise TripoRefusal(403, 1005, "No permission for upload credentials; use /files or /files/presign")
