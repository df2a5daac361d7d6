"""The project's keys: ES256 for access tokens (published as JWKS), HS256 for signed Storage URLs.

They are kept in the sandbox's home, so that tokens and links outlive restarts.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class SigningKeys:
    def __init__(self, directory: Path) -> None:
        self._private = _load_or_make(directory / "auth-key.pem", _new_private_key)
        self._link_secret = _load_or_make(directory / "link-secret", lambda: secrets.token_bytes(48))
        self._key = serialization.load_pem_private_key(self._private, password=None)
        public = self._key.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)  # noqa: S101 - made below
        self._jwk: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(public))
        digest = hashes.Hash(hashes.SHA256())
        digest.update(f"{self._jwk['x']}.{self._jwk['y']}".encode())
        self._kid = urlsafe_b64encode(digest.finalize()[:12]).decode()
        self._public = public

    def jwks(self) -> dict[str, Any]:
        key = {**self._jwk, "alg": "ES256", "kid": self._kid, "use": "sig", "key_ops": ["verify"]}
        return {"keys": [key]}

    def sign_token(self, claims: dict[str, Any]) -> str:
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)  # noqa: S101
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._kid})

    def read_token(self, token: str, *, issuer: str) -> dict[str, Any]:
        """Claims of an access token. Raises jwt.PyJWTError."""
        return jwt.decode(token, self._public, algorithms=["ES256"], audience="authenticated", issuer=issuer)

    def sign_link(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._link_secret, algorithm="HS256")

    def read_link(self, token: str) -> dict[str, Any]:
        """Claims of a signed URL. Raises jwt.PyJWTError."""
        return jwt.decode(token, self._link_secret, algorithms=["HS256"], options={"require": ["exp"]})


def _new_private_key() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_or_make(path: Path, make: Any) -> bytes:  # noqa: ANN401 - a function without arguments
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(make())
    return path.read_bytes()
