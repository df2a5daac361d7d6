"""OpenAI's own ways to fail: refusals by name, and replies that are not what was asked for."""

from __future__ import annotations

import base64
import io

from PIL import Image

from app.sandbox.providers.faults import Fault
from app.sandbox.providers.openai_strict import OpenAIRefusal, no_such_model

SPOILING = frozenset(
    {
        *("moderation_output", "fewer_images", "broken_image", "broken_base64", "jpeg_for_png", "no_usage"),
        *("stream_cut", "stream_error", "final_first"),
    }
)
"""Kinds that strike when the pictures are made and paid."""

_SAFETY = "Your request was rejected by the safety system. If you believe this is an error, contact us."
_QUOTA = "You exceeded your current quota, please check your plan and billing details."
_OVERLOAD = "The server is currently overloaded with other requests. Sorry about that! Please retry later."


def refusal_of(fault: Fault) -> OpenAIRefusal | None:
    """The refusal of a fault that strikes before acceptance; None for the others."""
    match fault.kind:
        case "moderation":
            return moderation("input")
        case "quota":
            return OpenAIRefusal(429, "insufficient_quota", "credit_balance_exhausted", _QUOTA)
        case "rate_limit" | "slow_down":
            return rate_limited({"retry-after": "1", **fault.headers}, slow_down=fault.kind == "slow_down")
        case "overloaded":
            headers = {"retry-after": "1", **fault.headers}
            return OpenAIRefusal(503, "service_unavailable_error", "server_is_overloaded", _OVERLOAD, headers=headers)
        case "server_error":
            return server_error()
        case "bad_key":
            return bad_key("")
        case "not_verified":
            message = "Your organization must be verified to use this model."
            return OpenAIRefusal(403, "invalid_request_error", None, message)
        case "model_gone":
            return no_such_model("")
        case _:
            return None


def moderation(stage: str) -> OpenAIRefusal:
    details = {"moderation_details": {"moderation_stage": stage, "categories": ["violence"]}}
    return OpenAIRefusal(400, "image_generation_user_error", "moderation_blocked", _SAFETY, extra=details)


def rate_limited(headers: dict[str, str], *, slow_down: bool = False) -> OpenAIRefusal:
    if slow_down:
        message = "Your request rate went up too fast. Slow down, then go up gradually."
        return OpenAIRefusal(429, "rate_limit_error", "slow_down", message, headers=headers)
    message = "Rate limit reached for this model in your organization on requests per min."
    return OpenAIRefusal(429, "requests", "rate_limit_exceeded", message, headers=headers)


def server_error() -> OpenAIRefusal:
    return OpenAIRefusal(500, "server_error", None, "The server had an error while processing your request.")


def bad_key(key: str) -> OpenAIRefusal:
    """Shows as little of the key as the original does."""
    shown = f"{key[:3]}…{key[-4:]}" if len(key) > 12 else "…"
    message = f"Incorrect API key provided: {shown}."
    return OpenAIRefusal(401, "invalid_request_error", "invalid_api_key", message)


def spoil(fault: Fault, pictures: list[bytes]) -> list[str]:
    """Pictures as base64, spoilt as the fault says."""
    match fault.kind:
        case "fewer_images":
            return encoded(pictures[:-1])
        case "broken_image":
            return [*encoded(pictures[:-1]), *encoded([b"this is no picture, says the sandbox"])]
        case "broken_base64":
            whole = encoded(pictures)
            return [*whole[:-1], "%%" + whole[-1][2:]]
        case "jpeg_for_png":
            return encoded([_as_jpeg(picture) for picture in pictures])
        case _:
            return encoded(pictures)


def encoded(pictures: list[bytes]) -> list[str]:
    return [base64.b64encode(picture).decode() for picture in pictures]


def _as_jpeg(picture: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
