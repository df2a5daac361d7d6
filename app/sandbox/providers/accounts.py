"""Who calls: accounts are known by a hash of their API key and its last letters, so that no key is ever stored."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from pydantic import SecretStr

_TAIL = 4


@dataclass(frozen=True, slots=True)
class Account:
    id: str
    key_tail: str
    """The last four characters of the key, for people who read the ledger."""


def account_of(key: str) -> Account:
    return Account(hashlib.sha256(key.encode()).hexdigest()[:16], key[-_TAIL:])


class KeyRing:
    """Which keys are good: the configured one, and every key that goes on from it with a hyphen.

    ``tsk_sandbox`` and ``tsk_sandbox-other`` are two accounts with their own money, files and tasks.
    """

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def account(self, authorization: str | None) -> Account | None:
        """The account of an ``Authorization`` header; None when it holds no good key."""
        scheme, _, key = (authorization or "").partition(" ")
        base = self._key.get_secret_value()
        good = hmac.compare_digest(key.encode(), base.encode()) or key.startswith(f"{base}-")
        return account_of(key) if scheme.lower() == "bearer" and good else None
