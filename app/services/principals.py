"""Who calls: Supabase access tokens checked against the project's keys, and the service key."""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import Any
from uuid import UUID

import httpx
import jwt
import structlog

from app.config import Settings
from app.domain.principal import Principal
from app.errors import AppError, ErrorCode

log = structlog.get_logger(__name__)

_ALGORITHMS = ("ES256", "RS256")
_KEYS_LAST_SECONDS = 600.0
_UNKNOWN_KEY_SECONDS = 30.0  # a token with an unknown key id may cause at most one fetch in this time
_LEEWAY_SECONDS = 10
_REQUIRED = ["exp", "sub", "aud", "iss"]


class PrincipalVerifier:
    def __init__(self, settings: Settings, http: httpx.AsyncClient) -> None:
        self._http = http
        self._jwks_url = settings.jwks_url
        self._issuer = settings.jwt_issuer
        self._audience = settings.supabase_jwt_audience
        self._service_key = settings.supabase_service_key.get_secret_value().encode()
        secret = settings.supabase_jwt_secret
        self._shared_secret = None if secret is None else secret.get_secret_value()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, *, authorization: str | None, apikey: str | None, user_id_header: str | None) -> Principal:
        """The caller. Raises AppError: UNAUTHENTICATED, TOKEN_EXPIRED, VALIDATION_ERROR, SERVICE_UNAVAILABLE."""
        token = _bearer(authorization)
        for candidate in (token, apikey):
            if candidate is not None and hmac.compare_digest(candidate.encode(), self._service_key):
                return _service(user_id_header)
        if token is None:
            raise AppError(ErrorCode.UNAUTHENTICATED)
        return _user(await self._claims(token))

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise AppError(ErrorCode.UNAUTHENTICATED) from None
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._shared_secret is not None:
            return self._decode(token, self._shared_secret, ["HS256"])
        key_id = header.get("kid")
        if algorithm not in _ALGORITHMS or not isinstance(key_id, str):
            raise AppError(ErrorCode.UNAUTHENTICATED)
        return self._decode(token, await self._key(key_id), list(_ALGORITHMS))

    def _decode(self, token: str, key: jwt.PyJWK | str, algorithms: list[str]) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise AppError(ErrorCode.TOKEN_EXPIRED) from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise AppError(ErrorCode.UNAUTHENTICATED) from None

    async def _key(self, key_id: str) -> jwt.PyJWK:
        now = time.monotonic()
        stale = now - self._fetched > _KEYS_LAST_SECONDS
        unknown = key_id not in self._keys and now - self._tried > _UNKNOWN_KEY_SECONDS
        if stale or unknown:
            await self._refresh(self._tried)
        key = self._keys.get(key_id)
        if key is None:
            if not self._keys:
                raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "The project's signing keys are not available.", 5)
            raise AppError(ErrorCode.UNAUTHENTICATED)
        return key

    async def _refresh(self, seen_try: float) -> None:
        """Fetch the keys, one fetch at a time; the last good set stays when that fails."""
        async with self._fetching:
            if self._tried != seen_try:
                return  # somebody else just did
            self._tried = time.monotonic()
            try:
                answer = await self._http.get(self._jwks_url)
                answer.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(answer.json()).keys if answer.json().get("keys") else []
            except (httpx.HTTPError, ValueError, AttributeError, jwt.PyJWTError) as error:
                log.warning("jwks_not_fetched", error=type(error).__name__)
                return
            self._keys = {key.key_id: key for key in keys if key.key_id}
            self._fetched = self._tried


def _bearer(authorization: str | None) -> str | None:
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token and token.isascii() else None


def _service(user_id_header: str | None) -> Principal:
    try:
        user_id = UUID(user_id_header or "")
    except ValueError:
        raise AppError(
            ErrorCode.VALIDATION_ERROR, "The service acts for a user: send the user's UUID in X-User-Id."
        ) from None
    return Principal("service", user_id)


def _user(claims: dict[str, Any]) -> Principal:
    if claims.get("role") != "authenticated":
        raise AppError(ErrorCode.UNAUTHENTICATED)
    try:
        return Principal("user", UUID(str(claims["sub"])))
    except ValueError:
        raise AppError(ErrorCode.UNAUTHENTICATED) from None
