"""The project's keys: ES256 for access tokens (published as JWKS), HS256 for signed Storage URLs.

They are kept in the sandbox's home, so that tokens and links outlive restarts.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class InvalidToken(Exception):
    """A token that proves nothing. The message is worded as the real services word it."""


class SigningKeys:
    """Loads the keys of a directory (mode 0600), making them at the first start."""

    def __init__(self, directory: Path) -> None:
        pem = _load_or_make(directory / "auth-key.pem", _new_private_key)
        self._link_secret = _load_or_make(directory / "link-secret", lambda: secrets.token_bytes(48))
        key = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory / 'auth-key.pem'} holds no P-256 key")
        self._key = key
        self._public = key.public_key()
        self._jwk: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(self._public))
        digest = hashlib.sha256(f"{self._jwk['x']}.{self._jwk['y']}".encode()).digest()
        self._kid = urlsafe_b64encode(digest[:12]).decode()

    def jwks(self) -> dict[str, Any]:
        key = {**self._jwk, "alg": "ES256", "kid": self._kid, "use": "sig", "key_ops": ["verify"]}
        return {"keys": [key]}

    def sign_token(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})

    def read_token(self, token: str, *, issuer: str) -> dict[str, Any]:
        """Claims of an access token. Raises InvalidToken."""
        try:
            return jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                audience="authenticated",
                issuer=issuer,
                options={"require": ["exp", "sub", "session_id"]},
            )
        except jwt.PyJWTError as error:
            raise InvalidToken(_reason(error)) from None

    def sign_link(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._link_secret, algorithm="HS256")

    def read_link(self, token: str) -> dict[str, Any]:
        """Claims of a signed URL. Raises InvalidToken."""
        try:
            return jwt.decode(token, self._link_secret, algorithms=["HS256"], options={"require": ["exp"]})
        except jwt.PyJWTError as error:
            raise InvalidToken(_reason(error)) from None


def _reason(error: jwt.PyJWTError) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return '"exp" claim timestamp check failed'
        case jwt.InvalidSignatureError():
            return "signature verification failed"
        case jwt.DecodeError():
            return "Invalid Compact JWS"
        case _:
            return "unexpected claim value"


def _new_private_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(make())
        new.replace(path)  # whole or not at all
    return path.read_bytes()


__all__ = ["InvalidToken", "SigningKeys"]
