"""For operators and their machines: health, metrics, and what error codes mean."""

from __future__ import annotations

import hmac
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app import problems
from app.deps import Services
from app.errors import AppError, ErrorCode
from app.schemas.problems import documented

router = APIRouter()


@router.get("/health/live", tags=["operations"])
async def live(services: Services) -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "environment": services.settings.environment}


@router.get(
    "/health/ready",
    tags=["operations"],
    response_model=dict[str, Any],
    responses=documented(ErrorCode.SERVICE_UNAVAILABLE, anonymous=True),
)
async def ready(request: Request, services: Services) -> Response | dict[str, Any]:
    """The process can do its work (`ok`), or most of it (`degraded`); else 503 with the part that is missing."""
    found = await services.health.look()
    if found.ready:
        status = "degraded" if found.degraded else "ok"
        return {
            "status": status,
            "environment": services.settings.environment,
            "parts": found.parts,
            "providers": found.providers,
        }
    missing = ", ".join(f"{part}: {state}" for part, state in found.parts.items() if state != "ok")
    error = AppError(ErrorCode.SERVICE_UNAVAILABLE, missing, retry_after=2, extra={"parts": found.parts})
    return problems.response(request, error)


@router.get(
    "/metrics",
    tags=["operations"],
    response_class=Response,
    responses=documented(ErrorCode.UNAUTHENTICATED, anonymous=True),
)
async def metrics(request: Request, services: Services) -> Response:
    """Prometheus metrics of this process and of the whole installation. Nothing in them is about a person.

    With `BFF_METRICS_TOKEN` set, only for who sends it as a bearer token.
    """
    wanted = services.settings.metrics_token
    sent = request.headers.get("authorization", "").removeprefix("Bearer ")
    if wanted is not None and not hmac.compare_digest(sent.encode(), wanted.get_secret_value().encode()):
        raise AppError(ErrorCode.UNAUTHENTICATED)
    found = await services.installation.text()  # first: it also sets gauges of this process
    return Response(generate_latest() + found, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/problems", tags=["problems"])
async def problem_types() -> list[dict[str, Any]]:
    """The catalogue of error codes."""
    return [problems.describe(code) for code in ErrorCode]


@router.get("/problems/{code}", tags=["problems"], responses=documented(ErrorCode.NOT_FOUND, anonymous=True))
async def problem_type(code: str) -> dict[str, Any]:
    """What one code means."""
    try:
        return problems.describe(ErrorCode.of(code))
    except KeyError:
        raise AppError(ErrorCode.NOT_FOUND) from None
