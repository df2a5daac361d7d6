"""Parsing of untrusted JSON bodies, and refusals as replies."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncpg
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.sandbox.supabase.errors import StorageRefusal, bad_request, no_such_route

Handler = Callable[[Request], Awaitable[Response]]

_NOBODY_READS_THIS = 499  # the client is gone
_MARK = "X-MakeIt3D-Sandbox"


def answering(handler: Handler) -> Handler:
    """Refusals become Storage's error bodies."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except StorageRefusal as refusal:
            return refusal.response()
        except asyncpg.DataError:  # for example a NUL in a name
            return bad_request("Invalid input").response()

    return marked(answer)


def marked(handler: Handler) -> Handler:
    """Every reply says that it is the sandbox's."""

    async def answer(request: Request) -> Response:
        try:
            response = await handler(request)
        except ClientDisconnect:
            response = Response(status_code=_NOBODY_READS_THIS)
        response.headers[_MARK] = "sandbox"
        return response

    return answer


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises StorageRefusal."""
    try:
        value = json.loads(await request.body() or b"null")
    except ValueError:
        message = "Body is not valid JSON but content-type is set to 'application/json'"
        raise bad_request(message, "FastifyError") from None
    if not isinstance(value, dict):
        raise bad_request("body must be object")
    return cast("dict[str, Any]", value)


def require(body: dict[str, Any], *names: str) -> None:
    """Raises StorageRefusal for the first that the body lacks."""
    for name in names:
        if name not in body:
            raise bad_request(f"body must have required property '{name}'")


def text(body: dict[str, Any], name: str, default: str = "") -> str:
    """A text; a number is taken for its digits."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise bad_request(f"body/{name} must be string")
    return value


def whole(body: dict[str, Any], name: str, default: int, *, at_least: int) -> int:
    """A number, also when it comes as a string: the Python client sends ``"60"``. Null is 0."""
    if name not in body:
        return default
    value = body[name]
    try:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError
        number = 0 if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        raise bad_request(f"body/{name} must be integer") from None
    if number < at_least:
        raise bad_request(f"body/{name} must be >= {at_least}")
    return number


def flag(body: dict[str, Any], name: str) -> bool | None:
    """A boolean, also as ``"true"`` or 1; None when absent."""
    match body.get(name):
        case None if name not in body:
            return None
        case True | 1 | "true":
            return True
        case False | 0 | "false" | None:
            return False
        case _:
            raise bad_request(f"body/{name} must be boolean")


def texts(body: dict[str, Any], name: str, *, at_least: int = 1, at_most: int | None = None) -> list[str]:
    """Texts; one alone is taken for a list of one."""
    require(body, name)
    value = [body[name]] if isinstance(body[name], str) else body[name]
    if not isinstance(value, list):
        raise bad_request(f"body/{name} must be array")
    items = cast("list[object]", value)
    for at, item in enumerate(items):
        if not isinstance(item, str):
            raise bad_request(f"body/{name}/{at} must be string")
    if len(items) < at_least:
        raise bad_request(f"body/{name} must NOT have fewer than {at_least} items")
    if at_most is not None and len(items) > at_most:
        raise bad_request(f"body/{name} must NOT have more than {at_most} items")
    return cast("list[str]", items)


def mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"body/{name} must be object")
    return cast("dict[str, Any]", value)


def no_route(request: Request, _: Exception) -> Response:
    """What Storage says to a path or method that it does not have."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return no_such_route(request.method, path).response()


__all__ = [
    "Handler",
    "answering",
    "flag",
    "json_body",
    "mapping",
    "marked",
    "no_route",
    "require",
    "text",
    "texts",
    "whole",
]
