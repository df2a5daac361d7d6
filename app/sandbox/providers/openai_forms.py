"""Reading the bodies of OpenAI calls, before anything is known to be right about them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.sandbox.providers.openai_strict import OpenAIRefusal, check_images, refuse

_MAX_JSON_BYTES = 1024 * 1024
_MAX_FILES = 40
_MAX_FIELD_BYTES = 256 * 1024
_OVERLAYS = ("mask", "markup")


@dataclass(frozen=True, slots=True)
class EditForm:
    fields: dict[str, Any]
    images: list[tuple[bytes, str]]
    """Bytes and declared content type."""
    overlays: dict[str, bytes]
    digest: str


async def json_fields(request: Request) -> tuple[dict[str, Any], str]:
    """Fields and hash of a JSON body. Raises OpenAIRefusal."""
    _check_type(request, "application/json")
    raw = bytearray()
    async for block in request.stream():
        raw += block
        if len(raw) > _MAX_JSON_BYTES:
            raise OpenAIRefusal(413, "invalid_request_error", None, "Request too large.")
    try:
        fields: object = json.loads(raw)
    except (ValueError, RecursionError):
        raise refuse("invalid_json", "We could not parse the JSON body of your request.", None) from None
    if not isinstance(fields, dict):
        raise refuse("invalid_type", "Invalid type for the body: expected an object.", None)
    return cast("dict[str, Any]", fields), hashlib.sha256(raw).hexdigest()


async def edit_form(request: Request) -> EditForm:
    """Parts of a multipart body; files are read when their number, size and type are right. Raises OpenAIRefusal."""
    _check_type(request, "multipart/form-data")
    try:
        async with request.form(max_files=_MAX_FILES, max_part_size=_MAX_FIELD_BYTES) as form:
            fields: dict[str, Any] = {}
            images: list[UploadFile] = []
            overlays: dict[str, UploadFile] = {}
            for name, value in form.multi_items():
                if name in ("image", "image[]") or name in _OVERLAYS:
                    if not isinstance(value, UploadFile):
                        raise refuse("invalid_type", f"Invalid type for '{name}': expected a file.", name)
                    if name in _OVERLAYS:
                        overlays[name] = value
                    else:
                        images.append(value)
                elif isinstance(value, UploadFile):
                    raise refuse("unknown_parameter", f"Unknown parameter: '{name}'.", name)
                else:
                    fields[name] = value
            check_images([(file.size or 0, file.content_type or "") for file in images])
            read = [(await file.read(), file.content_type or "") for file in images]
            drawn = {name: await file.read() for name, file in overlays.items()}
    except HTTPException as error:
        raise OpenAIRefusal(400, "invalid_request_error", None, str(error.detail)) from None
    digest = hashlib.sha256(json.dumps(sorted(fields.items())).encode())
    for data, _ in read:
        digest.update(hashlib.sha256(data).digest())
    for name, data in sorted(drawn.items()):
        digest.update(name.encode() + hashlib.sha256(data).digest())
    return EditForm(fields, read, drawn, digest.hexdigest())


def _check_type(request: Request, wanted: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        message = f"Unsupported content type: this method accepts '{wanted}'."
        raise OpenAIRefusal(400, "invalid_request_error", "unsupported_content_type", message)
