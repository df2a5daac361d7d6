"""The API under its public address, as apps reach it and as links are made of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httpx

from app.config import Settings
from app.services.doctor.examination import Group, Seen, by_settings
from app.services.doctor.findings import Code, Finding

_ANSWER_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class _ApiPatient:
    settings: Settings
    http: httpx.AsyncClient


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[_ApiPatient]:
    async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
        yield _ApiPatient(settings, http)


async def _public_address(patient: _ApiPatient) -> Seen:
    url = f"{patient.settings.public_base_url}/health/live"
    try:
        answer = await patient.http.get(url)
    except httpx.HTTPError as error:
        return [Finding(Code.API_UNREACHABLE, f"{url}: {type(error).__name__}")]
    environment = _environment(answer)
    if environment is None:
        return [Finding(Code.API_UNREACHABLE, f"{url} answered {answer.status_code}, and not as the gateway does")]
    if environment != patient.settings.environment:
        seen = f"{url} is of a gateway in the environment {environment!r}"
        return [Finding(Code.API_UNREACHABLE, f"{seen}, this one is {patient.settings.environment!r}")]
    return [f"answers at {patient.settings.public_base_url}"]


def _environment(answer: httpx.Response) -> object:
    """What the gateway says of itself; None where something else answers."""
    if answer.status_code != HTTPStatus.OK:
        return None
    try:
        body: object = answer.json()
    except ValueError:
        return None
    return cast("dict[str, Any]", body).get("environment") if isinstance(body, dict) else None


API = Group("api", by_settings(_open), (_public_address,), silence=Code.API_UNREACHABLE)
