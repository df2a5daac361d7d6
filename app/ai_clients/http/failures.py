"""What a broken exchange means, and what may be told of a reply."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

import httpx

from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.errors import ErrorCode

# raised before a byte of the request left; every other transport error may come after the provider took it
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
)

_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,64}")


def transport_failure(error: BaseException | None) -> ProviderError:
    """What a broken exchange of a paid call means: REFUSED when no request left, else UNKNOWN."""
    if isinstance(error, _NOT_SENT):
        return unreachable()
    kind = type(error).__name__ if isinstance(error, httpx.TransportError) else "interrupted"
    return OutcomeUnknown(
        ErrorCode.PROVIDER_OUTCOME_UNKNOWN,
        "The connection to the provider broke after the request was sent.",
        provider_code=kind,
    )


def unreachable(retry_after: float | None = None, http_status: int | None = None) -> Refused:
    """The provider did not take the request, or a free request failed; a later one may succeed."""
    return Refused(
        ErrorCode.PROVIDER_UNAVAILABLE,
        "The provider can not be reached just now.",
        http_status=http_status,
        advice=Advice.RETRY,
        retry_after=retry_after,
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks us to wait: ``retry-after-ms``, or ``retry-after`` as seconds or HTTP date."""
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _positive(value)
    if seconds is not None or value is None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _positive(value: str | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def identifier(value: object, *, secret: str) -> str | None:
    """A provider's code or request id, if it looks like one and does not hold the key; free text never passes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value) or secret in value:
        return None
    return value
