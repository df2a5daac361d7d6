"""What can come back from a paid provider instead of a result.

ProviderError
├── Refused          the provider did not take the request, or no request left us: nothing was paid
└── OutcomeUnknown   the request left and we do not know what became of it: it may have been paid

Classification is by transport phase, HTTP status and the provider's code, never by message text (prompts are
echoed there). Each provider has its own table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import httpx

from app.errors import ErrorCode


class Advice(Enum):
    """What a refusal means for the job and for the provider."""

    FINAL = "final"  # repeating the same request can not help
    RETRY = "retry"  # a later repeat may help; counts as an attempt
    DEFER = "defer"  # the provider is full or slows us down: give the attempt back
    CONFIGURATION = "configuration"  # key, credits or model: every job of this provider is affected


@dataclass
class ProviderError(Exception):
    """``code`` goes into the row; ``detail`` is safe to show (no key, no echoed prompt)."""

    code: ErrorCode
    detail: str
    provider_code: str | None = None
    http_status: int | None = None
    provider_request_id: str | None = None

    def __post_init__(self) -> None:
        super().__init__(f"{self.code.code}: {self.detail}")


@dataclass
class Refused(ProviderError):
    advice: Advice = Advice.FINAL
    retry_after: float | None = None  # seconds, from the provider's headers


@dataclass
class OutcomeUnknown(ProviderError):
    pass


class SendRevoked(httpx.ConnectError):
    """The call may not be sent any more, and no byte of it was: for a transport the same as no connection."""
