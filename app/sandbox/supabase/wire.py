"""Parsing of untrusted JSON bodies, and refusals as replies."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import asyncpg
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.sandbox.supabase.errors import StorageRefusal, bad_request

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
    """The JSON object of a request; an empty body is an empty object. Raises StorageRefusal."""
    try:
        value = json.loads(await request.body() or b"{}")
    except ValueError:
        raise bad_request("Body is not valid JSON") from None
    if not isinstance(value, dict):
        raise bad_request("body must be object")
    return cast("dict[str, Any]", value)


def text(body: dict[str, Any], name: str, default: str = "") -> str:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise bad_request(f"body/{name} must be string")
    return value


def whole(body: dict[str, Any], name: str, default: int) -> int:
    """A number, also when it comes as a string: the Python client sends ``"60"``."""
    value = body.get(name)
    if value is None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise bad_request(f"body/{name} must be integer") from None


def texts(body: dict[str, Any], name: str, *, at_most: int) -> list[str]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
        raise bad_request(f"body/{name} must be an array of strings")
    items = cast("list[str]", value)
    if not 1 <= len(items) <= at_most:
        raise bad_request(f"body/{name} must have 1 to {at_most} items")
    return items


def mapping(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"body/{name} must be object")
    return cast("dict[str, Any]", value)


__all__ = ["Handler", "answering", "json_body", "mapping", "marked", "text", "texts", "whole"]
