"""Identity: can the tokens of the project's users be checked?"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from uuid import uuid4

import httpx
import jwt

from app.config import Settings
from app.services.doctor.examination import Group, Seen, by_settings
from app.services.doctor.findings import Code, Finding, Ill

_ANSWER_SECONDS = 5.0
_TOKEN_SECONDS = 60


@dataclass(frozen=True, slots=True)
class _AuthPatient:
    settings: Settings
    http: httpx.AsyncClient
    keys: int  # with which the project signs


@asynccontextmanager
async def _open(settings: Settings) -> AsyncGenerator[_AuthPatient]:
    """Raises Ill."""
    async with httpx.AsyncClient(timeout=_ANSWER_SECONDS) as http:
        try:
            answer = await http.get(settings.jwks_url)
        except httpx.HTTPError as error:
            raise Ill(Finding(Code.JWKS_UNREACHABLE, f"{settings.jwks_url}: {type(error).__name__}")) from None
        keys = _keys(answer)
        if keys is None:
            raise Ill(Finding(Code.JWKS_UNREACHABLE, f"{settings.jwks_url} answered {answer.status_code}, not keys"))
        yield _AuthPatient(settings, http, len(keys))


def _keys(answer: httpx.Response) -> list[object] | None:
    if answer.status_code != HTTPStatus.OK:
        return None
    try:
        document: object = answer.json()
    except ValueError:
        return None
    keys: object = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    return cast("list[object]", keys) if isinstance(keys, list) else None


async def _signing(patient: _AuthPatient) -> Seen:
    secret = patient.settings.supabase_jwt_secret
    if secret is None:
        if not patient.keys:
            return [Finding(Code.JWT_SECRET_MISSING, "the project publishes no signing keys")]
        return [f"{patient.keys} signing key{'s' if patient.keys > 1 else ''}"]
    if await _signs_for_project(patient, secret.get_secret_value()):
        return ["the shared secret is the project's"]
    return [Finding(Code.JWT_SECRET_WRONG, "Auth does not accept a token signed with it")]


async def _signs_for_project(patient: _AuthPatient, secret: str) -> bool:
    """Whether Auth gets past the signature of a token of nobody's: then it misses the user or the session."""
    now = int(time.time())
    claims = {
        "iss": patient.settings.jwt_issuer,
        "aud": patient.settings.supabase_jwt_audience,
        "role": "authenticated",
        "sub": str(uuid4()),
        "session_id": str(uuid4()),
        "iat": now,
        "exp": now + _TOKEN_SECONDS,
    }
    token = jwt.encode(claims, secret, algorithm="HS256")
    headers = {
        "Authorization": f"Bearer {token}",
        "apikey": patient.settings.supabase_service_key.get_secret_value(),
        "X-Supabase-Api-Version": "2024-01-01",
    }
    answer = await patient.http.get(f"{patient.settings.jwt_issuer}/user", headers=headers)
    try:
        body: object = answer.json()
    except ValueError:
        body = None
    code: object = cast("dict[str, Any]", body).get("code") if isinstance(body, dict) else None
    return code in ("user_not_found", "session_not_found")


IDENTITY = Group("identity", by_settings(_open), (_signing,), silence=Code.JWKS_UNREACHABLE)
