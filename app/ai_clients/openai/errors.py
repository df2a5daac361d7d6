"""OpenAI's refusals as ours: by HTTP status and the body's ``code`` and ``type``, never by message text, in which
prompts are echoed. What the table does not name with a definite status is unknown, because it may have been paid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from openai import APIConnectionError, APIStatusError

from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.http.failures import identifier, retry_after_seconds, transport_failure
from app.ai_clients.openai.codes import NO_MONEY
from app.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class _Row:
    error: ErrorCode
    advice: Advice
    detail: str


_PARAMETER = _Row(ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The provider refused a parameter.")
_PICTURE = _Row(ErrorCode.PROVIDER_INPUT_REFUSED, Advice.FINAL, "The provider could not use the input picture.")
_TOO_LARGE = _Row(ErrorCode.PROVIDER_INPUT_REFUSED, Advice.FINAL, "The input is larger than the provider takes.")
_MODERATION = _Row(
    ErrorCode.PROVIDER_CONTENT_REFUSED, Advice.FINAL, "The provider's content policy refused this request."
)
_KEY = _Row(ErrorCode.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION, "The provider rejected the gateway's key.")
_ACCOUNT = _Row(
    ErrorCode.PROVIDER_KEY_REJECTED, Advice.CONFIGURATION, "The gateway's provider account may not do this."
)
_MODEL = _Row(
    ErrorCode.PROVIDER_MODEL_UNAVAILABLE, Advice.CONFIGURATION, "The provider's model is not available to the gateway."
)
_MODEL_ASKED_FOR = _Row(
    ErrorCode.PROVIDER_REQUEST_REFUSED, Advice.FINAL, "The model that was asked for is not available."
)
_MONEY = _Row(
    ErrorCode.PROVIDER_CREDITS_EXHAUSTED, Advice.CONFIGURATION, "The gateway's provider account is out of credits."
)
_RATE = _Row(ErrorCode.PROVIDER_RATE_LIMITED, Advice.DEFER, "The provider asks us to slow down.")
_BUSY = _Row(ErrorCode.PROVIDER_BUSY, Advice.DEFER, "The provider is overloaded and took nothing.")

# status → code or type → row; "" is the rest of that status
_TABLE: Mapping[int, Mapping[str, _Row]] = {
    400: {
        "moderation_blocked": _MODERATION,
        "content_policy_violation": _MODERATION,
        "invalid_image_file": _PICTURE,
        "unsupported_file_mimetype": _PICTURE,
        "invalid_api_key": _KEY,
        "unsupported_model": _MODEL,
        "model_not_found": _MODEL,
        "": _PARAMETER,
    },
    401: {"": _KEY},
    402: {"": _MONEY},
    403: {"unsupported_model": _MODEL, "model_not_found": _MODEL, "": _ACCOUNT},
    404: {"": _MODEL},
    405: {"": _PARAMETER},
    410: {"": _MODEL},
    413: {"": _TOO_LARGE},
    415: {"": _PICTURE},
    422: {"": _PARAMETER},
    429: {
        **dict.fromkeys(NO_MONEY, _MONEY),
        "": _RATE,
    },
    503: {"server_is_overloaded": _BUSY},
}

_INPUT_PARAMETERS = ("image", "mask")


def openai_failure(error: Exception, *, api_key: str, model_is_configured: bool) -> ProviderError:
    """What an exception of a paid call means. The answer quotes neither the provider's message nor the key.

    ``model_is_configured`` is false where the client chose the model: then a missing one is not our configuration.
    """
    if isinstance(error, APIStatusError):
        return _status_failure(error, api_key=api_key, model_is_configured=model_is_configured)
    return transport_failure(error.__cause__ if isinstance(error, APIConnectionError) else error)


def _status_failure(error: APIStatusError, *, api_key: str, model_is_configured: bool) -> ProviderError:
    body = _error_object(error.body)
    code, kind = identifier(body.get("code"), secret=api_key), identifier(body.get("type"), secret=api_key)
    request_id = identifier(error.response.headers.get("x-request-id"), secret=api_key)
    row = _row(error.status_code, code, kind, body.get("param"))
    if row is None:
        return OutcomeUnknown(
            ErrorCode.PROVIDER_OUTCOME_UNKNOWN,
            "The provider answered with a server error; it may have done the work.",
            provider_code=code or kind,
            http_status=error.status_code,
            provider_request_id=request_id,
        )
    if row is _MODEL and not model_is_configured:
        row = _MODEL_ASKED_FOR
    return Refused(
        row.error,
        row.detail,
        provider_code=code or kind,
        http_status=error.status_code,
        provider_request_id=request_id,
        advice=row.advice,
        retry_after=retry_after_seconds(error.response.headers) if row.advice is Advice.DEFER else None,
    )


def _row(status: int, code: str | None, kind: str | None, parameter: object) -> _Row | None:
    rows = _TABLE.get(status, {})
    row = rows.get(code or "-") or rows.get(kind or "-") or rows.get("")
    if row is _PARAMETER and isinstance(parameter, str) and parameter.startswith(_INPUT_PARAMETERS):
        return _PICTURE
    return row


def _error_object(body: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", body) if isinstance(body, Mapping) else {}
