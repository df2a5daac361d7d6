"""Tokens whose signature was checked, so that it is checked once for each. Their text is never kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.domain.principal import Principal

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """``ends`` is in seconds since 1970, the leeway included. ``key_id`` names the project's key that signed it; None
    is the legacy shared secret. It holds for one generation of the project's keys."""

    principal: Principal
    ends: float
    key_id: str | None
    generation: int


class VerifiedTokens:
    """The ``most`` used last, by a hash with a key of this process."""

    def __init__(self, *, now: Callable[[], float] = time.time, most: int = _MOST) -> None:
        self._now = now
        self._most = most
        self._secret = secrets.token_bytes(32)
        self._found: dict[bytes, VerifiedToken] = {}  # the one used last is the last

    def __len__(self) -> int:
        return len(self._found)

    def find(self, token: bytes, *, generation: int) -> VerifiedToken | None:
        key = self._hash(token)
        found = self._found.pop(key, None)
        if found is None or found.generation != generation or found.ends <= self._now():
            return None
        self._found[key] = found
        return found

    def add(self, token: bytes, verified: VerifiedToken) -> None:
        self._found[self._hash(token)] = verified
        while len(self._found) > self._most:
            del self._found[next(iter(self._found))]

    def _hash(self, token: bytes) -> bytes:
        return hashlib.blake2b(token, digest_size=32, key=self._secret).digest()
