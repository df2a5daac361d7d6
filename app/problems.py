"""Errors on the wire: RFC 9457 problem documents with the codes of the one catalogue."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import orjson
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.db.pool import REPEATABLE, UNREACHABLE
from app.errors import AppError, ErrorCode

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

PROBLEMS = Counter("makeit3d_http_problems_total", "Requests refused or failed, by code of the catalogue", ["code"])

_UNREACHABLE_RETRY_SECONDS = 2.0
_MAX_FAULTS = 50
_MAX_FIELD_CHARACTERS = 120

_OF_STATUS = {
    400: ErrorCode.MALFORMED_REQUEST,
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.REQUEST_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    422: ErrorCode.VALIDATION_ERROR,
    503: ErrorCode.SERVICE_UNAVAILABLE,
}

# headers as people write them, for the field of a fault
_HEADER_NAMES = {"idempotency-key": "Idempotency-Key", "last-event-id": "Last-Event-ID", "x-user-id": "X-User-Id"}


def describe(error: ErrorCode) -> dict[str, Any]:
    """What a problem type means: the document behind its ``type``."""
    return {
        "type": f"/problems/{error.code}",
        "code": error.code,
        "title": error.title,
        "status": error.status,
        "retryable": error.retry_helps,
    }


def document(
    error: ErrorCode, *, detail: str | None, path: str, request_id: str | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of one problem. ``extra`` never replaces a standard member."""
    body = {**extra, **describe(error), "instance": path}
    if detail is not None:
        body["detail"] = detail
    if request_id is not None:
        body["request_id"] = request_id
    return body


def response(request: Request, error: AppError, *, headers: Mapping[str, str] | None = None) -> Response:
    """The problem response of an error."""
    PROBLEMS.labels(error.error.code).inc()
    body = document(
        error.error,
        detail=error.detail,
        path=request.url.path,
        request_id=getattr(request.state, "request_id", None),
        extra=error.extra,
    )
    sent = dict(headers or {})
    if error.retry_after is not None:
        sent["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.error.status == ErrorCode.UNAUTHENTICATED.status:
        sent["WWW-Authenticate"] = "Bearer"
    sent["Cache-Control"] = "no-store"
    return Response(orjson.dumps(body), status_code=error.error.status, headers=sent, media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every refusal with a problem. What nobody expected is the middleware's to answer."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (*UNREACHABLE, *REPEATABLE):
        app.add_exception_handler(kind, _unreachable)


async def _app_error(request: Request, error: Exception) -> Response:
    return response(request, cast("AppError", error))


async def _http_exception(request: Request, error: Exception) -> Response:
    raised = cast("HTTPException", error)
    if isinstance(raised.__cause__, AppError):  # the framework wraps what reading the body raised
        return response(request, raised.__cause__)
    code = _OF_STATUS.get(raised.status_code)
    if code is None:
        code = ErrorCode.INTERNAL_ERROR if raised.status_code >= 500 else ErrorCode.MALFORMED_REQUEST
    headers = dict(raised.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _allowed(request, headers["Allow"])
    return response(request, AppError(code), headers=headers)


def _allowed(request: Request, of_one_route: str) -> str:
    """Methods of all routes of the path; the framework names those of the first one."""
    route = request.scope.get("route")
    path = getattr(route, "path", None)
    methods = set(of_one_route.split(", ")).union(*_methods(request.app.routes, path))
    if "GET" in methods:
        methods.add("HEAD")  # served where GET is
    return ", ".join(sorted(methods))


def _methods(routes: Sequence[Any], path: str | None) -> Iterator[set[str]]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from _methods(included.routes, path)
        elif path is not None and getattr(route, "path", None) == path:
            yield route.methods


async def _unreachable(request: Request, error: Exception) -> Response:
    log.error("service_unreachable", error=type(error).__name__, exc_info=error)
    return response(request, AppError(ErrorCode.SERVICE_UNAVAILABLE, retry_after=_UNREACHABLE_RETRY_SECONDS))


async def _invalid(request: Request, error: Exception) -> Response:
    faults = cast("RequestValidationError", error).errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return response(request, AppError(ErrorCode.MALFORMED_REQUEST, "The body is not JSON."))
    whole_body = any(tuple(fault["loc"]) == ("body",) for fault in faults)
    if whole_body and not _is_json(request.headers.get("content-type", "")):
        return response(request, AppError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json."))
    return response(request, AppError(ErrorCode.VALIDATION_ERROR, extra={"errors": _faults(faults)}))


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _faults(faults: Sequence[Any]) -> list[dict[str, str]]:
    """Field, code and message of each; what was sent is never repeated."""
    return [
        {"field": _field(fault["loc"]), "code": fault["type"], "message": fault["msg"].removeprefix("Value error, ")}
        for fault in faults[:_MAX_FAULTS]
    ]


def _field(location: Sequence[int | str]) -> str:
    where, *rest = (str(part) for part in location)
    if where == "header" and rest:
        return _HEADER_NAMES.get(rest[0], rest[0])
    return ".".join(rest)[:_MAX_FIELD_CHARACTERS] or where
