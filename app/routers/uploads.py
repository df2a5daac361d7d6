"""``POST /uploads``: for clients that do not upload to Storage themselves."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request

from app.deps import Caller, Services
from app.errors import ErrorCode
from app.routers.multipart import FormReceiver
from app.routers.pace import Pace, keep_pace
from app.schemas.problems import documented
from app.schemas.uploads import MULTIPART_BODY, UploadedAsset

_TASK, _TYPE = "task_id", "input_asset_type"

router = APIRouter(tags=["assets"])


@router.post(
    "/uploads",
    status_code=201,
    openapi_extra={"requestBody": MULTIPART_BODY},
    responses=documented(
        ErrorCode.MALFORMED_REQUEST,
        ErrorCode.TASK_NOT_FOUND,
        ErrorCode.REQUEST_TOO_LARGE,
        ErrorCode.INPUT_TOO_LARGE,
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        ErrorCode.INPUT_EMPTY,
        ErrorCode.INPUT_NOT_IMAGE,
        ErrorCode.INPUT_NOT_MODEL,
        ErrorCode.INPUT_TOO_COMPLEX,
        ErrorCode.INPUT_TRUNCATED,
        ErrorCode.INPUT_TOO_MANY_PIXELS,
        ErrorCode.INPUT_TOO_SMALL,
        ErrorCode.TOO_MANY_UPLOADS,
        ErrorCode.UPLOAD_TOO_SLOW,
        ErrorCode.STORAGE_UNAVAILABLE,
        ErrorCode.STORAGE_REFUSED_SIZE,
        ErrorCode.STORAGE_REFUSED_TYPE,
    ),
)
async def upload(request: Request, caller: Caller, services: Services) -> UploadedAsset:
    """A picture or a GLB model becomes an input of the caller."""
    async with services.uploads.workspace(caller.user_id) as (directory, held):
        receiver = FormReceiver(
            directory / "upload",
            field_names=frozenset({_TASK, _TYPE}),
            limit_of=services.uploads.limit_of,
            room=held.take,
        )
        body = keep_pace(request.stream(), Pace.of(services.settings))
        async with held.receiving():
            form = await receiver.receive(request.headers.get("content-type", ""), body)
        asset = await services.uploads.store(
            form.file,
            user_id=caller.user_id,
            task_id=form.fields.get(_TASK) or None,
            input_asset_type=form.fields.get(_TYPE) or None,
        )
    return UploadedAsset.model_validate(asdict(asset))
