"""Who calls: Supabase access tokens checked against the project's keys, and the service key.

Tokens are checked here and not by asking the auth service: signature, issuer, audience, expiry and role, with a fixed
list of algorithms. A valid token says nothing about a sign-out or a ban until it expires.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import httpx
import jwt
import structlog

from app.config import Settings
from app.domain.principal import Principal
from app.errors import AppError, ErrorCode
from app.services.verified_tokens import VerifiedToken, VerifiedTokens

log = structlog.get_logger(__name__)

_ALGORITHMS = ("ES256", "RS256")
_KEYS_LAST_SECONDS = 600.0
_UNKNOWN_KEY_SECONDS = 30.0  # a token with an unknown key id may cause at most one fetch in this time
_FAILED_SECONDS = 5.0  # no fetch so soon after one that failed
_FETCH_SECONDS = 5.0
_LEEWAY_SECONDS = 10
_REQUIRED = ["exp", "sub", "aud", "iss"]


class PrincipalVerifier:
    """One per process: it remembers the project's keys, and tokens until they expire or the keys change. ``clock``
    counts seconds from anywhere, ``now`` those since 1970."""

    def __init__(
        self,
        settings: Settings,
        http: httpx.AsyncClient,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        secret = settings.supabase_jwt_secret
        self._keys = _ProjectKeys(settings.jwks_url, http, clock)
        self._tokens = VerifiedTokens(now=now)
        self._issuer = settings.jwt_issuer
        self._audience = settings.supabase_jwt_audience
        self._service_key = settings.supabase_service_key.get_secret_value().encode()
        self._shared_secret = "" if secret is None else secret.get_secret_value()

    async def verify(self, *, authorization: str | None, apikey: str | None, user_id_header: str | None) -> Principal:
        """The caller, from the headers Authorization, apikey and X-User-Id. Anonymous sign-ins are users, too.

        Raises AppError: UNAUTHENTICATED, TOKEN_EXPIRED, VALIDATION_ERROR, SERVICE_UNAVAILABLE.
        """
        token = _bearer(_raw(authorization))
        if self._is_service_key(token) or self._is_service_key(_raw(apikey)):
            return _service(user_id_header)
        if token is None:
            raise AppError(ErrorCode.UNAUTHENTICATED)
        return self._remembered(token) or await self._verify(token)

    def known(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """The caller, from raw headers, where it can be told without checking a signature or asking for keys; else
        ``verify`` says."""
        token = _bearer(headers.get(b"authorization"))
        if self._is_service_key(token) or self._is_service_key(headers.get(b"apikey")):
            try:
                return _service(headers.get(b"x-user-id", b"").decode("latin-1"))
            except AppError:
                return None
        return None if token is None else self._remembered(token)

    def _remembered(self, token: bytes) -> Principal | None:
        found = self._tokens.find(token, generation=self._keys.generation)
        if found is None:
            return None
        if found.key_id is not None and self._keys.is_fetch_due(found.key_id):
            return None  # the keys may turn out to have changed
        return found.principal

    async def _verify(self, token: bytes) -> Principal:
        claims, key_id, generation = await self._claims(token.decode("ascii"))
        principal = _user(claims)
        ends = int(claims["exp"]) + _LEEWAY_SECONDS
        self._tokens.add(token, VerifiedToken(principal, ends, key_id, generation))
        return principal

    def _is_service_key(self, candidate: bytes | None) -> bool:
        return bool(candidate) and bool(self._service_key) and hmac.compare_digest(candidate, self._service_key)

    async def _claims(self, token: str) -> tuple[dict[str, Any], str | None, int]:
        """With the id of the project's key that signed, and the generation of keys that it is of."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise AppError(ErrorCode.UNAUTHENTICATED) from None
        algorithm = header.get("alg")
        if algorithm == "HS256" and self._shared_secret:
            return self._decode(token, self._shared_secret, ["HS256"]), None, self._keys.generation
        key_id = header.get("kid")
        if algorithm not in _ALGORITHMS or not isinstance(key_id, str):
            raise AppError(ErrorCode.UNAUTHENTICATED)
        key = await self._keys.get(key_id)
        return self._decode(token, key, list(_ALGORITHMS)), key_id, self._keys.generation

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


class _ProjectKeys:
    """The project's public keys by key id: fetched when needed, one fetch at a time, the last good set kept."""

    def __init__(self, url: str, http: httpx.AsyncClient, clock: Callable[[], float]) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] | None = None
        self._document: object = None  # what they were made from
        self.generation = 0  # counts changes of the set
        self._fetched = self._tried = float("-inf")
        self._fetching = asyncio.Lock()

    async def get(self, key_id: str) -> jwt.PyJWK:
        """Raises AppError: UNAUTHENTICATED for an unknown key, SERVICE_UNAVAILABLE when no keys were ever seen."""
        if self.is_fetch_due(key_id):
            async with self._fetching:
                if self.is_fetch_due(key_id):  # nobody fetched while we waited
                    await self._fetch()
        if self._keys is None:
            raise AppError(
                ErrorCode.SERVICE_UNAVAILABLE, "The project's signing keys are not available.", _FAILED_SECONDS
            )
        if key_id not in self._keys:
            raise AppError(ErrorCode.UNAUTHENTICATED)
        return self._keys[key_id]

    def is_fetch_due(self, key_id: str) -> bool:
        """Whether ``get`` would ask the project first."""
        since_fetch, since_try = self._clock() - self._fetched, self._clock() - self._tried
        if self._keys is None or since_fetch > _KEYS_LAST_SECONDS:
            return since_try > _FAILED_SECONDS
        return key_id not in self._keys and since_try > _UNKNOWN_KEY_SECONDS

    async def _fetch(self) -> None:
        try:
            answer = await self._http.get(self._url, timeout=_FETCH_SECONDS)
            answer.raise_for_status()
            document = answer.json()
            keys = _public_keys(document)
        except (httpx.HTTPError, ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
            log.warning("jwks_not_fetched", error=type(error).__name__, keeps_last=self._keys is not None)
        else:
            self._keys, self._fetched = keys, self._clock()
            if document != self._document:
                self._document = document
                self.generation += 1
        finally:
            self._tried = self._clock()


def _public_keys(document: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """Only keys of our algorithms: a symmetric key in a public document would let anyone sign."""
    if not document["keys"]:
        return {}  # a project that signs with the legacy shared secret
    keys = jwt.PyJWKSet.from_dict(document).keys
    return {key.key_id: key for key in keys if key.key_id and key.algorithm_name in _ALGORITHMS}


def _raw(header: str | None) -> bytes | None:
    return None if header is None else header.encode()


def _bearer(authorization: bytes | None) -> bytes | None:
    scheme, _, token = (authorization or b"").partition(b" ")
    token = token.strip()
    return token if scheme.lower() == b"bearer" and token and token.isascii() else None


def _service(user_id_header: str | None) -> Principal:
    try:
        return Principal("service", UUID(user_id_header or ""))
    except ValueError:
        message = "The service acts for a user: send the user's UUID."
        fault = {"field": "X-User-Id", "code": "uuid_parsing", "message": message}
        raise AppError(ErrorCode.VALIDATION_ERROR, message, extra={"errors": [fault]}) from None


def _user(claims: dict[str, Any]) -> Principal:
    if claims.get("role") != "authenticated":
        raise AppError(ErrorCode.UNAUTHENTICATED)
    try:
        return Principal("user", UUID(str(claims["sub"])), float(claims["exp"]))
    except ValueError:
        raise AppError(ErrorCode.UNAUTHENTICATED) from None
