"""A project's signing key, served as the project serves it, and every token that is not quite right."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

_KEY_ID = "signing-key-1"


@dataclass
class Project:
    """Signs tokens as the auth service behind ``supabase_url`` does."""

    supabase_url: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def public_key(self) -> dict[str, Any]:
        return {**json.loads(ECAlgorithm.to_jwk(self.key.public_key())), "alg": "ES256", "kid": _KEY_ID, "use": "sig"}

    def claims(self, user_id: UUID | str, **changes: object) -> dict[str, Any]:
        """A change to None takes the claim away."""
        now = int(time.time())
        plain: dict[str, Any] = {
            "iss": f"{self.supabase_url}/auth/v1",
            "sub": str(user_id),
            "aud": "authenticated",
            "role": "authenticated",
            "iat": now,
            "exp": now + 3600,
        }
        return {name: value for name, value in (plain | changes).items() if value is not None}

    def token(self, user_id: UUID | str, **changes: object) -> str:
        return jwt.encode(self.claims(user_id, **changes), self.key, algorithm="ES256", headers={"kid": _KEY_ID})

    def bearer(self, user_id: UUID | str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user_id)}"}


@asynccontextmanager
async def project() -> AsyncGenerator[Project]:
    """A key document on a port of loopback."""
    found: list[Project] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"keys": [found[0].public_key]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        found.append(Project(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/supabase"))
        yield found[0]


Forge = Callable[[Project, UUID], str]


def _unsigned(project: Project, user_id: UUID) -> str:
    head, claims = ({"alg": "none", "typ": "JWT", "kid": _KEY_ID}, project.claims(user_id))
    return f"{_segment(head)}.{_segment(claims)}."


def _signed_with_the_public_key(project: Project, user_id: UUID) -> str:
    """The classic confusion: what everybody may read, taken for a shared secret."""
    secret = project.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    message = f"{_segment({'alg': 'HS256', 'typ': 'JWT', 'kid': _KEY_ID})}.{_segment(project.claims(user_id))}"
    signature = hmac.new(secret, message.encode(), hashlib.sha256).digest()
    return f"{message}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _signed_elsewhere(project: Project, user_id: UUID) -> str:
    stranger = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(project.claims(user_id), stranger, algorithm="ES256", headers={"kid": _KEY_ID})


def _key_of_its_own(project: Project, user_id: UUID) -> str:
    """The token brings the key that it is to be checked with."""
    stranger = Project(project.supabase_url)
    headers = {"kid": _KEY_ID, "jwk": stranger.public_key, "jku": "http://127.0.0.1:9/keys.json"}
    return jwt.encode(project.claims(user_id), stranger.key, algorithm="ES256", headers=headers)


def _key_id(key_id: str | None) -> Forge:
    headers = None if key_id is None else {"kid": key_id}
    return lambda project, user_id: jwt.encode(project.claims(user_id), project.key, algorithm="ES256", headers=headers)


def _claims(**changes: object) -> Forge:
    return lambda project, user_id: project.token(user_id, **changes)


def _after(seconds: int) -> int:
    return int(time.time()) + seconds


def _tampered(project: Project, user_id: UUID) -> str:
    head, _, signature = project.token(UUID(int=1)).split(".")
    return f"{head}.{_segment(project.claims(user_id))}.{signature}"


def _segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


# what a bearer token can have wrong, and the code that tells it
FORGERIES: dict[str, tuple[Forge, str]] = {
    "empty": (lambda *_: "", "unauthenticated"),
    "garbage": (lambda *_: "garbage", "unauthenticated"),
    "three dots": (lambda *_: "a.b.c", "unauthenticated"),
    "not ASCII": (lambda *_: "tök\xe4n", "unauthenticated"),
    "expired": (_claims(exp=1_700_000_000), "token_expired"),
    "not yet valid": (lambda p, u: p.token(u, nbf=_after(600)), "unauthenticated"),
    "issued in the future": (lambda p, u: p.token(u, iat=_after(600)), "unauthenticated"),
    "another audience": (_claims(aud="elsewhere"), "unauthenticated"),
    "no audience": (_claims(aud=None), "unauthenticated"),
    "another issuer": (_claims(iss="https://elsewhere.example/auth/v1"), "unauthenticated"),
    "no issuer": (_claims(iss=None), "unauthenticated"),
    "no end": (_claims(exp=None), "unauthenticated"),
    "role anon": (_claims(role="anon"), "unauthenticated"),
    "role service_role": (_claims(role="service_role"), "unauthenticated"),
    "no role": (_claims(role=None), "unauthenticated"),
    "role as a list": (_claims(role=["authenticated"]), "unauthenticated"),
    "subject is no id": (lambda p, _: p.token("1 or 1=1"), "unauthenticated"),
    "no subject": (_claims(sub=None), "unauthenticated"),
    "no signature": (_unsigned, "unauthenticated"),
    "signed with the public key": (_signed_with_the_public_key, "unauthenticated"),
    "signed by another key": (_signed_elsewhere, "unauthenticated"),
    "brings its own key": (_key_of_its_own, "unauthenticated"),
    "claims exchanged": (_tampered, "unauthenticated"),
    "unknown key id": (_key_id("another-key"), "unauthenticated"),
    "no key id": (_key_id(None), "unauthenticated"),
}
