"""``POST /generate/*``: each is queued, once per idempotency key."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Response

from app.container import ApiContainer
from app.deps import Caller, Services
from app.domain.commands import GenerateCommand
from app.domain.principal import Principal
from app.errors import ErrorCode
from app.schemas.generation import (
    ImageToImage,
    ImageToModel,
    RefineModel,
    SketchToModel,
    TaskAccepted,
    TextToImage,
    TextToModel,
)
from app.schemas.problems import documented

_REFUSALS = (
    ErrorCode.MALFORMED_REQUEST,
    ErrorCode.TASK_NOT_FOUND,
    ErrorCode.REQUEST_TOO_LARGE,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.PROVIDER_NOT_AVAILABLE,
    ErrorCode.RATE_LIMITED,
    ErrorCode.USER_LIMIT,
    ErrorCode.USER_BUDGET_EXCEEDED,
)
_INPUT_REFUSALS = (
    ErrorCode.INPUT_URL_INVALID,
    ErrorCode.INPUT_URL_FOREIGN,
    ErrorCode.INPUT_BUCKET_NOT_ALLOWED,
    ErrorCode.INPUT_NOT_FOUND,
    ErrorCode.INPUT_EMPTY,
    ErrorCode.INPUT_TOO_LARGE,
    ErrorCode.TOO_MANY_INPUTS,
    ErrorCode.STORAGE_UNAVAILABLE,
)
_PICTURE_REFUSALS = (
    *_INPUT_REFUSALS,
    ErrorCode.INPUT_NOT_IMAGE,
    ErrorCode.INPUT_TOO_COMPLEX,
    ErrorCode.INPUT_TRUNCATED,
    ErrorCode.INPUT_TOO_MANY_PIXELS,
    ErrorCode.INPUT_TOO_SMALL,
)
_DRAFT_REFUSALS = (
    *_INPUT_REFUSALS,
    ErrorCode.INPUT_NOT_MODEL,
    ErrorCode.DRAFT_NOT_FOUND,
    ErrorCode.DRAFT_NOT_REFINABLE,
)

_BY_TASK = {"parameters": {"id": "$response.body#/task_id"}}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Queued, or found under the same key.",
        "headers": {
            "Location": {"description": "The status_url.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds until a first look is worth it.", "schema": {"type": "integer"}},
        },
        "links": {
            "status": {"operationId": "task_status", **_BY_TASK},
            "task": {"operationId": "task_detail", **_BY_TASK},
            "cancel": {"operationId": "cancel_task", **_BY_TASK},
        },
    }
}

router = APIRouter(prefix="/generate", tags=["generate"], responses=_ACCEPTED)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r'^([!-~]+|"([ !#-\[\]-~]|\\["\\])+")$',
        description="Names this request within its task: the same key and body get the same answer, and nothing is"
        " made or paid again. Without it the body itself is the key, until the request fails or is canceled."
        " A quoted string (RFC 8941) and the bare text are the same key.",
    ),
]
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')


class Acceptance:
    """One request with its caller and its answer's headers."""

    def __init__(self, caller: Principal, services: ApiContainer, response: Response, key: str | None) -> None:
        self._caller = caller
        self._services = services
        self._response = response
        self._key = None if key is None else _bare(key)

    async def of(self, command: GenerateCommand) -> TaskAccepted:
        accepted = await self._services.generation.accept(self._caller, command, idempotency_key=self._key)
        structlog.contextvars.bind_contextvars(
            task_id=accepted.task_id, request_id=str(accepted.request_id), job_id=str(accepted.job_id)
        )
        status_url = f"{self._services.settings.public_base_url}/tasks/{accepted.task_id}/status"
        self._response.headers["Location"] = status_url
        self._response.headers["Retry-After"] = str(max(1, math.ceil(accepted.retry_after)))
        return TaskAccepted(
            task_id=accepted.task_id,
            request_id=accepted.request_id,
            job_id=accepted.job_id,
            celery_task_id=accepted.job_id,
            status=accepted.status.value,
            status_url=status_url,
            deduplicated=accepted.deduplicated,
        )


def _bare(key: str) -> str:
    """The text of a quoted string; any other text as it is."""
    quoted = _QUOTED.fullmatch(key)
    return key if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted[1])


async def _acceptance(caller: Caller, services: Services, response: Response, key: IdempotencyKey = None) -> Acceptance:
    return Acceptance(caller, services, response, key)


AcceptanceDep = Annotated[Acceptance, Depends(_acceptance)]


@router.post("/text-to-image", status_code=202, responses=documented(*_REFUSALS))
async def text_to_image(body: TextToImage, acceptance: AcceptanceDep) -> TaskAccepted:
    """Concept images from a text."""
    return await acceptance.of(body.command())


@router.post("/image-to-image", status_code=202, responses=documented(*_REFUSALS, *_PICTURE_REFUSALS))
async def image_to_image(body: ImageToImage, acceptance: AcceptanceDep) -> TaskAccepted:
    """Concept images from a picture."""
    return await acceptance.of(body.command())


@router.post("/text-to-model", status_code=202, responses=documented(*_REFUSALS))
async def text_to_model(body: TextToModel, acceptance: AcceptanceDep) -> TaskAccepted:
    """A 3D model from a text."""
    return await acceptance.of(body.command())


@router.post("/image-to-model", status_code=202, responses=documented(*_REFUSALS, *_PICTURE_REFUSALS))
async def image_to_model(body: ImageToModel, acceptance: AcceptanceDep) -> TaskAccepted:
    """A 3D model from one to four views of an object."""
    return await acceptance.of(body.command())


@router.post("/sketch-to-model", status_code=202, responses=documented(*_REFUSALS, *_PICTURE_REFUSALS))
async def sketch_to_model(body: SketchToModel, acceptance: AcceptanceDep) -> TaskAccepted:
    """A concept image from a sketch, then a 3D model from it."""
    return await acceptance.of(body.command())


@router.post("/refine-model", status_code=202, responses=documented(*_REFUSALS, *_DRAFT_REFUSALS))
async def refine_model(body: RefineModel, acceptance: AcceptanceDep) -> TaskAccepted:
    """A new, finer texture for a model that is there."""
    return await acceptance.of(body.command())
