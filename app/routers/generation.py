"""``POST /generate/*`` and ``POST /tasks``: each request is queued, once per idempotency key. The routes are made from
the registry of task types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, cast

import structlog
from fastapi import APIRouter, Depends, Header, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.container import ApiContainer
from app.deps import Caller, Services
from app.domain.principal import Principal
from app.errors import AppError, ErrorCode
from app.schemas.generation import IDEMPOTENCY_KEY_PATTERN, NewTask, OfTask, TaskAccepted, body_of
from app.schemas.problems import documented
from app.task_types.acceptance import UNCONDITIONAL, Conditions
from app.task_types.params import Params
from app.task_types.registry import AnyTaskType, TaskTypes
from app.task_types.steps import ParamsRefused

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
# by kind of input
_OF_INPUTS = {
    "picture": _PICTURE_REFUSALS,
    "model": (*_INPUT_REFUSALS, ErrorCode.INPUT_NOT_MODEL),
    "draft": (ErrorCode.DRAFT_NOT_FOUND, ErrorCode.DRAFT_NOT_REFINABLE),
}

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

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="Names this request within its task: the same key and body get the same answer, and nothing is"
        " made or paid again. Without it the body itself is the key, until the request fails or is canceled."
        " A quoted string (RFC 8941) and the bare text are the same key.",
    ),
]
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"')


class Answer:
    """One request with its caller and its answer's headers."""

    def __init__(self, caller: Principal, services: ApiContainer, response: Response, key: str | None) -> None:
        self._caller = caller
        self._services = services
        self._response = response
        self._header_key = key

    async def to(
        self,
        task_type: AnyTaskType,
        params: Params,
        *,
        task_id: str | None,
        key: str | None = None,
        conditions: Conditions = UNCONDITIONAL,
    ) -> TaskAccepted:
        accepted = await self._services.acceptance.accept(
            self._caller,
            task_type,
            params,
            task_id=task_id,
            idempotency_key=self._one_key(key),
            conditions=conditions,
        )
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

    def _one_key(self, in_body: str | None) -> str | None:
        """The key of the header or of the body. Raises AppError(VALIDATION_ERROR) when they are two."""
        sent = {_bare(key) for key in (self._header_key, in_body) if key is not None}
        if len(sent) > 1:
            raise _invalid("idempotency_key", "The header Idempotency-Key has another value.")
        return next(iter(sent), None)


def _bare(key: str) -> str:
    """The text of a quoted string; any other text as it is."""
    quoted = _QUOTED.fullmatch(key)
    return key if quoted is None else re.sub(r'\\(["\\])', r"\1", quoted[1])


async def _answer(caller: Caller, services: Services, response: Response, key: IdempotencyKey = None) -> Answer:
    return Answer(caller, services, response, key)


AnswerDep = Annotated[Answer, Depends(_answer)]


def routes(task_types: TaskTypes) -> APIRouter:
    """A route per type, and one for all."""
    router = APIRouter(responses=_ACCEPTED)
    bodies = {task_type.name: body_of(task_type) for task_type in task_types}
    for task_type in task_types:
        router.add_api_route(
            f"/generate/{task_type.name}",
            _operation(task_type, bodies[task_type.name]),
            methods=["POST"],
            status_code=202,
            name=task_type.name.replace("-", "_"),
            description=task_type.description,
            tags=["generate"],
            responses=documented(*_REFUSALS, *_refusals_of(task_type)),
        )
    of_all = [code for task_type in task_types for code in _refusals_of(task_type)]
    router.add_api_route(
        "/tasks",
        _creation(task_types, bodies),
        methods=["POST"],
        status_code=202,
        tags=["tasks"],
        responses=documented(
            *_REFUSALS,
            *of_all,
            ErrorCode.UNKNOWN_TASK_TYPE,
            ErrorCode.DEPENDENCY_NOT_FOUND,
            ErrorCode.DEPENDENCY_FAILED,
        ),
    )
    return router


def _refusals_of(task_type: AnyTaskType) -> list[ErrorCode]:
    kinds = {item.kind for item in task_type.inputs}
    return [code for kind, codes in _OF_INPUTS.items() if kind in kinds for code in codes]


_Endpoint = Callable[..., Coroutine[Any, Any, TaskAccepted]]


def _operation(task_type: AnyTaskType, model: type[OfTask]) -> _Endpoint:
    async def operation(body: OfTask, answer: AnswerDep) -> TaskAccepted:
        return await answer.to(task_type, cast("Params", body), task_id=body.task_id)

    operation.__annotations__["body"] = model  # what the framework parses and documents
    return operation


def _creation(task_types: TaskTypes, bodies: Mapping[str, type[OfTask]]) -> _Endpoint:
    async def create_task(body: NewTask, answer: AnswerDep) -> TaskAccepted:
        """Work of any type, as its own route does it, with the same answer. `GET /task-types` tells what there is.

        Without `task_id` a new task is made; `params` may hold it as well. `type` and `family` are other names of
        `task_type`, `input` of `params`, `dependant_on` of `depends_on`.
        """
        task_type = task_types.named(body.task_type)
        model = bodies[task_type.name] if "task_id" in body.params else task_type.params
        try:
            params = model.model_validate(body.params)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
            raise RequestValidationError(
                [{**fault, "loc": ("body", "params", *fault["loc"])} for fault in faults]
            ) from None
        inner = params.task_id if isinstance(params, OfTask) else None
        if inner is not None and body.task_id not in (None, inner):
            raise _invalid("params.task_id", "It is not the task_id beside params.")
        task_id = body.task_id or inner
        if task_id in body.depends_on:
            raise _invalid("depends_on", "A task cannot depend on itself.")
        conditions = Conditions(tuple(dict.fromkeys(body.depends_on)), body.expires_in)
        try:
            return await answer.to(
                task_type, cast("Params", params), task_id=task_id, key=body.idempotency_key, conditions=conditions
            )
        except ParamsRefused as refused:
            raise ParamsRefused(refused.faults, within="params") from None

    return create_task


def _invalid(field: str, message: str) -> AppError:
    fault = {"field": field, "code": "value_error", "message": message}
    return AppError(ErrorCode.VALIDATION_ERROR, extra={"errors": [fault]})
