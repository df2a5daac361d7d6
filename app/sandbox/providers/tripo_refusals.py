"""Tripo v3's refusals: HTTP status, code, and the envelope around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from app.sandbox.providers.faults import Fault


@dataclass
class TripoRefusal(Exception):
    http: int
    code: int
    message: str
    headers: dict[str, str] | None = None

    def response(self) -> Response:
        body: dict[str, Any] = {
            "code": self.code,
            "status": "error",
            "message": self.message,
            "suggestion": "Look the code up in the documentation; this is the sandbox.",
            "request_id": f"req_{uuid4().hex}",
        }
        return JSONResponse(body, self.http, self.headers)


def bad_parameter(message: str) -> TripoRefusal:
    return TripoRefusal(400, 1004, message)


def bad_key() -> TripoRefusal:
    """Code 2 is what a real bad key was seen to get; the documents name others."""
    return TripoRefusal(401, 2, "Authentication failed")


def no_task() -> TripoRefusal:
    return TripoRefusal(404, 2001, "Task not found")


def no_credits() -> TripoRefusal:
    return TripoRefusal(403, 2010, "You don't have enough credit to create this task")


def pool_full(seconds: int) -> TripoRefusal:
    return TripoRefusal(429, 2000, "You have exceeded the limit of concurrent tasks", {"Retry-After": str(seconds)})


def too_many(seconds: int) -> TripoRefusal:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(seconds)}
    return TripoRefusal(429, 1007, "You have exceeded the limit of requests", headers)


_BY_FAULT: Mapping[str, Callable[[], TripoRefusal]] = {
    "credits": no_credits,
    "busy": lambda: pool_full(1),
    "busy_503": lambda: TripoRefusal(503, 2000, "The service is busy", {"Retry-After": "1"}),
    "rate": lambda: too_many(1),
    "moderation": lambda: TripoRefusal(400, 2008, "The content violates the content policy"),
    "bad_key": bad_key,
    "audit": lambda: TripoRefusal(400, 2014, "The content could not be audited"),
    "code_200": lambda: TripoRefusal(200, 1001, "Internal server error"),
    "not_found": no_task,
    "too_large": lambda: TripoRefusal(413, 2021, "The file is too large"),
    "bad_parameter": lambda: bad_parameter("The file could not be read"),
}


def refusal_of(fault: Fault) -> TripoRefusal | None:
    """The refusal that a fault of the same name asks for; None for other kinds."""
    make = _BY_FAULT.get(fault.kind)
    return None if make is None else make()
