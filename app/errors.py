"""The one catalogue of error codes and the exceptions that carry them.

AppError                 a refusal with a catalogue code; becomes problem+json, a row's ``error_code`` and an event
└── ConfigurationError   a setting is missing or wrong; only raised while a process starts

The same code is used in HTTP problems, job and asset rows, and events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """What a code means: HTTP status where it answers a request, a title, and whether repeating can help."""

    code: str
    status: int
    title: str
    retry_helps: bool = False


class ErrorCode(Enum):
    """Every stable error code. Values are unique by ``code``."""

    # the request itself
    MALFORMED_REQUEST = Entry("malformed_request", 400, "The request could not be read")
    VALIDATION_ERROR = Entry("validation_error", 422, "Some fields are wrong")
    UNAUTHENTICATED = Entry("unauthenticated", 401, "A valid access token is required")
    TOKEN_EXPIRED = Entry("token_expired", 401, "The access token has expired")
    FORBIDDEN = Entry("forbidden", 403, "This caller may not do that")
    NOT_FOUND = Entry("not_found", 404, "Not found")
    METHOD_NOT_ALLOWED = Entry("method_not_allowed", 405, "Method not allowed")
    REQUEST_TOO_LARGE = Entry("request_too_large", 413, "The request body is too large")
    UNSUPPORTED_MEDIA_TYPE = Entry("unsupported_media_type", 415, "The content type is not supported")
    IDEMPOTENCY_KEY_REUSED = Entry("idempotency_key_reused", 422, "The idempotency key was used with another body")
    RATE_LIMITED = Entry("rate_limited", 429, "Too many requests for this provider", retry_helps=True)
    USER_LIMIT = Entry("user_limit", 429, "Too many unfinished jobs of this user", retry_helps=True)
    USER_BUDGET_EXCEEDED = Entry(
        "user_budget_exceeded", 429, "The user's budget for today is used up", retry_helps=True
    )
    TOO_MANY_CONNECTIONS = Entry(
        "too_many_connections", 429, "Too many connections from this address", retry_helps=True
    )
    TOO_MANY_UPLOADS = Entry("too_many_uploads", 429, "Too many uploads of this user at a time", retry_helps=True)
    TOO_MANY_INPUTS = Entry(
        "too_many_inputs", 429, "Too many inputs of this user are being looked at", retry_helps=True
    )
    UPLOAD_TOO_SLOW = Entry("upload_too_slow", 408, "What was sent did not arrive in time", retry_helps=True)
    EVENT_CURSOR_INVALID = Entry("event_cursor_invalid", 400, "Last-Event-ID is not one of ours")
    SERVICE_UNAVAILABLE = Entry("service_unavailable", 503, "A service we need does not answer", retry_helps=True)
    INTERNAL_ERROR = Entry("internal_error", 500, "Something went wrong on our side", retry_helps=True)

    # tasks
    TASK_NOT_FOUND = Entry("task_not_found", 404, "No such task")
    UNKNOWN_TASK_TYPE = Entry("unknown_task_type", 422, "No such task type")
    DEPENDENCY_NOT_FOUND = Entry("dependency_not_found", 404, "No such task to depend on")
    DEPENDENCY_FAILED = Entry("dependency_failed", 409, "A task that it depends on failed or was canceled")
    TASK_NOT_CANCELABLE = Entry("task_not_cancelable", 409, "The task has already ended")

    # inputs
    INPUT_URL_INVALID = Entry("input_url_invalid", 422, "The input URL is not a Storage URL")
    INPUT_URL_FOREIGN = Entry("input_url_foreign", 422, "The input URL belongs to another project")
    INPUT_BUCKET_NOT_ALLOWED = Entry("input_bucket_not_allowed", 422, "Inputs may not come from this bucket")
    INPUT_NOT_FOUND = Entry("input_not_found", 404, "No such input")
    INPUT_EMPTY = Entry("input_empty", 422, "The input file is empty")
    INPUT_TOO_LARGE = Entry("input_too_large", 413, "The input file is too large")
    INPUT_NOT_IMAGE = Entry("input_not_image", 422, "The input file is not an image that can be used")
    INPUT_NOT_MODEL = Entry("input_not_model", 422, "The input file is not a GLB model")
    INPUT_TRUNCATED = Entry("input_truncated", 422, "The input image is damaged or cut short")
    INPUT_TOO_MANY_PIXELS = Entry("input_too_many_pixels", 422, "The input image has too many pixels")
    INPUT_TOO_COMPLEX = Entry("input_too_complex", 422, "The input image takes too long or too much memory to read")
    INPUT_CHANGED = Entry("input_changed", 409, "The input file is another one than when the request was accepted")
    INPUT_TOO_SMALL = Entry("input_too_small", 422, "The input image is too small")
    DRAFT_NOT_FOUND = Entry("draft_not_found", 404, "No such draft model")
    DRAFT_NOT_REFINABLE = Entry("draft_not_refinable", 422, "This draft can not be refined")
    PROVIDER_NOT_AVAILABLE = Entry("provider_not_available", 422, "This provider does not offer the operation")

    # outcomes of provider calls, seen in rows
    PROVIDER_CONTENT_REFUSED = Entry("provider_content_refused", 422, "The provider's content policy refused this")
    PROVIDER_REQUEST_REFUSED = Entry("provider_request_refused", 502, "The provider refused the parameters")
    PROVIDER_INPUT_REFUSED = Entry("provider_input_refused", 422, "The provider could not use the input file")
    PROVIDER_CREDITS_EXHAUSTED = Entry("provider_credits_exhausted", 503, "The provider account is out of credits")
    PROVIDER_KEY_REJECTED = Entry("provider_key_rejected", 503, "The provider rejected the gateway's key")
    PROVIDER_MODEL_UNAVAILABLE = Entry("provider_model_unavailable", 503, "The provider's model is not available")
    PROVIDER_RATE_LIMITED = Entry("provider_rate_limited", 503, "The provider asks us to slow down", retry_helps=True)
    PROVIDER_BUSY = Entry("provider_busy", 503, "The provider has no free slot", retry_helps=True)
    PROVIDER_UNAVAILABLE = Entry("provider_unavailable", 503, "The provider can not be reached", retry_helps=True)
    CALL_NOT_SENT = Entry("call_not_sent", 503, "The request to the provider never left the gateway", retry_helps=True)
    PROVIDER_OUTCOME_UNKNOWN = Entry(
        "provider_outcome_unknown",
        502,
        "The connection broke after the request was sent; it may have been paid",
    )
    PROVIDER_TASK_FAILED = Entry("provider_task_failed", 502, "The provider could not do the work", retry_helps=True)
    PROVIDER_TASK_EXPIRED = Entry("provider_task_expired", 502, "The provider gave the work up", retry_helps=True)
    PROVIDER_TASK_CANCELED = Entry("provider_task_canceled", 502, "The work was canceled at the provider")
    PROVIDER_RESULT_INVALID = Entry("provider_result_invalid", 502, "The provider's result can not be used")
    PROVIDER_RESULT_TOO_LARGE = Entry("provider_result_too_large", 502, "The provider's result is too large")
    PROVIDER_RESULT_MISSING = Entry("provider_result_missing", 502, "The provider delivered fewer results than asked")

    # our own work
    STORAGE_UNAVAILABLE = Entry("storage_unavailable", 503, "Storage does not answer", retry_helps=True)
    STORAGE_REFUSED_SIZE = Entry("storage_refused_size", 413, "Storage does not take a file of this size")
    STORAGE_REFUSED_TYPE = Entry("storage_refused_type", 415, "Storage does not take a file of this type")
    STORAGE_REFUSED = Entry("storage_refused", 502, "Storage refused the file")
    PAID_RESULT_GONE = Entry("paid_result_gone", 410, "The paid result is no longer kept")
    STORAGE_CONFLICT = Entry("storage_conflict", 500, "Another file lies where the result belongs")
    DEADLINE_EXCEEDED = Entry("deadline_exceeded", 504, "The job took longer than it may", retry_helps=True)
    EXPIRED = Entry("expired", 504, "It was not started in the time that it was given", retry_helps=True)
    WORKER_CRASHED = Entry("worker_crashed", 500, "Workers crashed repeatedly while on this job", retry_helps=True)
    STEP_FAILED = Entry("step_failed", 422, "An earlier step of the request failed")
    CANCELED = Entry("canceled", 409, "Canceled")
    CONFIGURATION = Entry("configuration", 500, "A setting is missing or wrong")

    @property
    def code(self) -> str:
        return self.value.code

    @property
    def status(self) -> int:
        return self.value.status

    @property
    def title(self) -> str:
        return self.value.title

    @property
    def retry_helps(self) -> bool:
        return self.value.retry_helps

    @classmethod
    def of(cls, code: str) -> ErrorCode:
        """The member with this stable code. Raises KeyError for a code that was never ours."""
        return _BY_CODE[code]


# a result that storage does not take before somebody changes something
STORAGE_REFUSALS = (
    ErrorCode.STORAGE_REFUSED_SIZE,
    ErrorCode.STORAGE_REFUSED_TYPE,
    ErrorCode.STORAGE_REFUSED,
    ErrorCode.STORAGE_CONFLICT,
)

_BY_CODE = {member.value.code: member for member in ErrorCode}


@dataclass
class AppError(Exception):
    """A refusal by catalogue code.

    ``detail`` is for people and never quotes secrets; ``extra`` adds members to the problem document;
    ``retry_after`` is in seconds and becomes the Retry-After header.
    """

    error: ErrorCode
    detail: str | None = None
    retry_after: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        super().__init__(self.error.code)

    def __str__(self) -> str:
        return f"{self.error.code}: {self.detail or self.error.title}"


class ConfigurationError(AppError):
    """A setting is missing or wrong. The message names it and says what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__(ErrorCode.CONFIGURATION, detail)
