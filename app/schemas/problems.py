"""The wire form of errors, and how routes document theirs."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.errors import ErrorCode

_MEDIA_TYPE = "application/problem+json"

# what every route that needs a caller may answer
_OF_CALLERS = (
    ErrorCode.UNAUTHENTICATED,
    ErrorCode.TOKEN_EXPIRED,
    ErrorCode.VALIDATION_ERROR,
    ErrorCode.SERVICE_UNAVAILABLE,
    ErrorCode.INTERNAL_ERROR,
)


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    field: str
    code: str
    message: str


class Problem(BaseModel):
    """RFC 9457. Decide by ``code``: it is stable, and the same in rows and events."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["/problems/task_not_found"])
    title: str
    status: int
    code: str
    retryable: bool = Field(description="Whether repeating the same request later can help.")
    detail: str | None = None
    instance: str | None = None
    request_id: str | None = None
    errors: list[Fault] | None = Field(None, description="With validation_error: what is wrong, field by field.")


def documented(*codes: ErrorCode, anonymous: bool = False) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route: these refusals by status, with those that any route can give."""
    by_status: defaultdict[int, list[ErrorCode]] = defaultdict(list)
    for code in dict.fromkeys((*codes, *(() if anonymous else _OF_CALLERS))):
        by_status[code.status].append(code)
    return {status: _response(found) for status, found in sorted(by_status.items())}


def _response(codes: list[ErrorCode]) -> dict[str, Any]:
    examples = {
        code.code: {
            "summary": code.title,
            "value": {
                "type": f"/problems/{code.code}",
                "title": code.title,
                "status": code.status,
                "code": code.code,
                "retryable": code.retry_helps,
            },
        }
        for code in codes
    }
    # the schema is named here, because a route's response model is always documented as application/json
    content = {_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}}
    return {"description": "; ".join(code.code for code in codes), "content": content}
