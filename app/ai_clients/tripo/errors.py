"""Tripo's replies and refusals as ours: by HTTP status and envelope code, never by message text.

Source: Tripo v3's error table and the vendor's SDKs. What the table does not name is unknown on a paid create.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from app.ai_clients.base import Capability, ProviderTaskState
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.http.failures import identifier, retry_after_seconds, unreachable
from app.errors import ErrorCode

_EPOCH_FLOOR = 1_000_000_000  # a reset header larger than this is a time, not a number of seconds


@dataclass(frozen=True, slots=True)
class TripoReply:
    status: int
    headers: Mapping[str, str]
    body: Mapping[str, Any] | None  # None: not a JSON object

    @property
    def code(self) -> int | None:
        """The envelope's code; None without an envelope."""
        value: object = (self.body or {}).get("code")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def succeeded(self) -> bool:
        body = self.body or {}
        return 200 <= self.status < 300 and self.code == 0 and body.get("status") != "error"

    @property
    def data(self) -> object:
        return (self.body or {}).get("data")


def parse_reply(status: int, headers: Mapping[str, str], content: bytes) -> TripoReply:
    """A reply with its amounts as Decimal."""
    try:
        document: object = json.loads(content, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        document = None
    body = cast("dict[str, Any]", document) if isinstance(document, dict) else None
    return TripoReply(status, headers, body)


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


@dataclass(frozen=True, slots=True)
class _Row:
    error: ErrorCode
    advice: Advice
    detail: str


_KEY = _Row(ErrorCode.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION, "The provider rejected the gateway's key.")
_PERMISSION = _Row(
    ErrorCode.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION, "The gateway's provider account may not do this."
)
_MONEY = _Row(
    ErrorCode.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION, "The gateway's provider account is out of credits."
)
_VERSION = _Row(
    ErrorCode.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION, "The provider no longer offers the configured model."
)
_VERSION_ASKED_FOR = _Row(
    ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The model version that was asked for is not available."
)
_PARAMETER = _Row(ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The provider refused a parameter.")
_CHARACTERS = _Row(ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The provider refused characters of the prompt.")
_SOURCE = _Row(ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The provider can not use the earlier result.")
_INPUT = _Row(ErrorCode.PROVIDER_INPUT_REFUSED, Advice.FINAL, "The provider could not use the input file.")
_CONTENT = _Row(ErrorCode.PROVIDER_CONTENT_REFUSED, Advice.FINAL, "The provider's content policy refused this request.")
_AUDIT = _Row(ErrorCode.PROVIDER_UNAVAILABLE, Advice.RETRY, "The provider could not check the request just now.")
_RATE = _Row(ErrorCode.PROVIDER_RATE_LIMITED, Advice.DEFER, "The provider asks us to slow down.")
_SLOTS = _Row(ErrorCode.PROVIDER_BUSY, Advice.DEFER, "The provider has no free slot.")
_DECLINED = _Row(ErrorCode.PROVIDER_UNAVAILABLE, Advice.DEFER, "The provider declined the request for now.")
_DRAFT_MISSING = _Row(ErrorCode.DRAFT_NOT_FOUND, Advice.FINAL, "The provider does not have this draft.")
_DRAFT_UNFIT = _Row(ErrorCode.DRAFT_NOT_REFINABLE, Advice.FINAL, "The provider can not refine this draft.")

_BY_CODE: Mapping[int, _Row] = {
    2: _KEY,
    1002: _KEY,
    1003: _PARAMETER,
    1004: _PARAMETER,
    1005: _PERMISSION,
    1007: _RATE,
    2000: _SLOTS,
    2001: _SOURCE,
    2002: _PARAMETER,
    2003: _INPUT,
    2004: _INPUT,
    2005: _SOURCE,
    2006: _SOURCE,
    2007: _SOURCE,
    2008: _CONTENT,
    2009: _CHARACTERS,
    2010: _MONEY,
    2013: _PERMISSION,
    2014: _AUDIT,
    2015: _VERSION,
    2016: _VERSION,
    2017: _VERSION,
    2018: _INPUT,
    2019: _INPUT,
    2021: _INPUT,
    2022: _INPUT,
    4001: _PARAMETER,
}
_SERVER_ERRORS = frozenset({1000, 1001})

# by status, where the code says nothing
_BY_STATUS: Mapping[int, _Row] = {403: _PERMISSION, 413: _INPUT, 429: _RATE}
_MAY_BE_ACCEPTED = frozenset({408, 425})

_DRAFT: Mapping[int, _Row] = {2001: _DRAFT_MISSING, 2005: _DRAFT_UNFIT, 2006: _DRAFT_UNFIT, 2007: _DRAFT_UNFIT}


def create_failure(
    reply: TripoReply, *, api_key: str, capability: Capability, model_is_configured: bool = True
) -> ProviderError:
    """What a create that did not succeed means.

    ``model_is_configured`` is false where the client chose the version: then a missing one is not our configuration.
    """
    row = _row(reply)
    if row is None:
        return OutcomeUnknown(
            ErrorCode.PROVIDER_OUTCOME_UNKNOWN,
            "The provider's answer does not say whether it took the request.",
            provider_code=identifier(reply.code, secret=api_key),
            http_status=reply.status,
            provider_request_id=request_id(reply, api_key=api_key),
        )
    if capability is Capability.TEXTURE_MODEL:
        row = _DRAFT.get(reply.code or 0, row)
    if row is _VERSION and not model_is_configured:
        row = _VERSION_ASKED_FOR
    return _refused(reply, row, api_key)


def free_failure(reply: TripoReply, *, api_key: str) -> Refused:
    """What a failed request that costs nothing means: what is unclear may simply be repeated."""
    row = _row(reply)
    if row is None:
        return unreachable(retry_after_seconds(reply.headers), reply.status)
    return _refused(reply, row, api_key)


def _row(reply: TripoReply) -> _Row | None:
    """The row of a definite refusal; None when the request may have been taken."""
    status, code = reply.status, reply.code
    if status == 401:
        return _KEY
    if status == 503:
        return _DECLINED if code else None
    if not code and status < 400:
        return None
    if status >= 500 or 300 <= status < 400 or status in _MAY_BE_ACCEPTED or code in _SERVER_ERRORS:
        return None
    return _BY_CODE.get(code or 0) or _BY_STATUS.get(status, _PARAMETER)


def _refused(reply: TripoReply, row: _Row, api_key: str) -> Refused:
    return Refused(
        row.error,
        row.detail,
        provider_code=identifier(reply.code, secret=api_key),
        http_status=reply.status,
        provider_request_id=request_id(reply, api_key=api_key),
        advice=row.advice,
        retry_after=_wait(reply.headers) if row.advice is Advice.DEFER else None,
    )


def _wait(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, by ``Retry-After`` or else ``X-RateLimit-Reset`` (seconds, or a time)."""
    asked = retry_after_seconds(headers)
    if asked is not None:
        return asked
    reset = retry_after_seconds({"retry-after": headers.get("x-ratelimit-reset", "")})
    if reset is None or reset < _EPOCH_FLOOR:
        return reset
    return max(0.0, reset - time.time())


def request_id(reply: TripoReply, *, api_key: str) -> str | None:
    """What the vendor's support asks for."""
    for value in ((reply.body or {}).get("request_id"), reply.headers.get("x-tripo-trace-id")):
        known = identifier(value, secret=api_key)
        if known is not None:
            return known
    return None


# --- failures of tasks ------------------------------------------------------------------------------------------

TASK_STATES: Mapping[str, ProviderTaskState] = {
    "queued": ProviderTaskState.RUNNING,
    "running": ProviderTaskState.RUNNING,
    "success": ProviderTaskState.SUCCEEDED,
    "failed": ProviderTaskState.FAILED,
    "banned": ProviderTaskState.FAILED,
    "expired": ProviderTaskState.FAILED,
    "cancelled": ProviderTaskState.CANCELED,
}

_TASK_CODES: Mapping[int, ErrorCode] = {
    2008: ErrorCode.PROVIDER_CONTENT_REFUSED,
    2018: ErrorCode.PROVIDER_TASK_EXPIRED,
}
_TASK_WORDS: Mapping[str, ErrorCode] = {
    "banned": ErrorCode.PROVIDER_CONTENT_REFUSED,
    "expired": ErrorCode.PROVIDER_TASK_EXPIRED,
}
_TASK_DETAILS: Mapping[ErrorCode, str] = {
    ErrorCode.PROVIDER_CONTENT_REFUSED: "The provider's content policy refused the work.",
    ErrorCode.PROVIDER_TASK_EXPIRED: "The provider gave the work up before starting it.",
    ErrorCode.PROVIDER_TASK_FAILED: "The provider could not do the work.",
}


def task_failure(status: str, code: object) -> tuple[ErrorCode, str]:
    """Code and detail of a task that failed at the provider, by its ``error_code`` or else its status word."""
    known = _TASK_CODES.get(code) if isinstance(code, int) else None
    error = known or _TASK_WORDS.get(status, ErrorCode.PROVIDER_TASK_FAILED)
    number = f" (code {code})" if isinstance(code, int) else ""
    return error, _TASK_DETAILS[error].replace(".", f"{number}.")
