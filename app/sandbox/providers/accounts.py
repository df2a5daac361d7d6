"""Accounts are known by a hash of their API key, so that no key is ever stored."""

from __future__ import annotations

import hashlib


def account_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:16]
