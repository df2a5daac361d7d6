"""Tokens with real keys, against a key document served by a transport of httpx."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from app.config import Settings
from app.domain.principal import Principal
from app.errors import AppError, ErrorCode
from app.services.principals import PrincipalVerifier
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

PROJECT = "https://abcdefgh.supabase.co"
SERVICE_KEY = "sb_secret_0123456789"
SHARED_SECRET = "a shared secret " * 5
USER = UUID("0b1c2d3e-4f50-4617-8293-a4b5c6d7e8f9")

EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, key_id: str) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "alg": "RS256", "kid": key_id}
    return {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "alg": "ES256", "kid": key_id}


def claims(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any claim
    now = int(time.time())
    plain = {
        "iss": f"{PROJECT}/auth/v1",
        "sub": str(USER),
        "aud": "authenticated",
        "role": "authenticated",
        "iat": now,
        "exp": now + 3600,
        "user_metadata": {"role": "service_role"},
        "is_anonymous": False,
    }
    return {name: value for name, value in (plain | changes).items() if value is not None}


def token(key: Any = EC_KEY, algorithm: str = "ES256", key_id: str | None = "k1", **changes: Any) -> str:  # noqa: ANN401
    headers = None if key_id is None else {"kid": key_id}
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


@dataclass(repr=False)
class Project:
    """The project's key document, and a clock to move."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [public_jwk(EC_KEY, "k1"), public_jwk(RSA_KEY, "r1")])
    answer: httpx.Response | None = None
    fails: bool = False
    fetches: int = 0
    now: float = 1000.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{PROJECT}/auth/v1/.well-known/jwks.json"
        self.fetches += 1
        await asyncio.sleep(0)
        if self.fails:
            raise httpx.ConnectError("no route")
        return self.answer or httpx.Response(200, json={"keys": self.keys})


@dataclass
class Desk:
    project: Project
    verifier: PrincipalVerifier

    async def of(self, bearer: str) -> Principal:
        return await self.verifier.verify(authorization=f"Bearer {bearer}", apikey=None, user_id_header=None)

    async def refusal(self, bearer: str) -> ErrorCode:
        with pytest.raises(AppError) as caught:
            await self.of(bearer)
        assert len(bearer) < 20 or bearer not in repr(caught.value)
        return caught.value.error


def configured(**changes: Any) -> Settings:  # noqa: ANN401 - any setting
    plain = {
        "supabase_url": PROJECT,
        "supabase_service_key": SERVICE_KEY,
        "database_url": "postgresql://nobody@localhost/unused",
        "redis_url": "redis://localhost",
        "openai_api_key": "sk-test",
        "tripo_api_key": "tsk_test",
    }
    return Settings.model_validate(plain | changes)


def desk_of(http: httpx.AsyncClient, project: Project, **changes: Any) -> Desk:  # noqa: ANN401 - any setting
    return Desk(project, PrincipalVerifier(configured(**changes), http, clock=lambda: project.now))


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
async def http(project: Project) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(project)) as client:
        yield client


@pytest.fixture
def desk(http: httpx.AsyncClient, project: Project) -> Desk:
    return desk_of(http, project)


# --- users --------------------------------------------------------------------------------------------------


async def test_a_user(desk: Desk) -> None:
    assert await desk.of(token()) == Principal("user", USER)
    end = 4_000_000_000
    assert (await desk.of(token(exp=end))).expires_at == end
    assert await desk.of(token(RSA_KEY, "RS256", "r1")) == Principal("user", USER)
    assert await desk.of(token(aud=["other", "authenticated"], is_anonymous=True)) == Principal("user", USER)
    lower = await desk.verifier.verify(
        authorization=f"bearer  {token()} ", apikey="sb_publishable_x", user_id_header="x"
    )
    assert lower == Principal("user", USER)
    assert desk.project.fetches == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "anon"},
        {"aud": None},
        {"iss": "https://zyxwvuts.supabase.co/auth/v1"},
        {"iss": f"{PROJECT}/auth/v1/"},
        {"iss": "supabase"},
        {"iss": None},
        {"exp": None},
        {"exp": "soon"},
        {"sub": None},
        {"sub": "admin"},
        {"sub": ""},
        {"role": "anon"},
        {"role": "service_role"},
        {"role": None},
        {"role": ["authenticated"]},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
    ],
)
async def test_claims_that_do_not_do(desk: Desk, changes: dict[str, Any]) -> None:
    assert await desk.refusal(token(**changes)) is ErrorCode.UNAUTHENTICATED


async def test_an_expired_token_says_so(desk: Desk) -> None:
    assert await desk.refusal(token(exp=int(time.time()) - 60)) is ErrorCode.TOKEN_EXPIRED
    # but only to those who had a real one
    assert await desk.refusal(token(OTHER_KEY, exp=int(time.time()) - 60)) is ErrorCode.UNAUTHENTICATED


async def test_a_clock_may_be_a_little_wrong(desk: Desk) -> None:
    assert await desk.of(token(exp=int(time.time()) - 3, iat=int(time.time()) + 3))


async def test_foreign_signatures(desk: Desk) -> None:
    assert await desk.refusal(token(OTHER_KEY)) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(token(RSA_KEY, "RS256", "k1")) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(token(EC_KEY, "ES256", "r1")) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(token(RSA_KEY, "RS512", "r1")) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(token(RSA_KEY, "PS256", "r1")) is ErrorCode.UNAUTHENTICATED
    head, body, signature = token().split(".")
    other = token(sub=str(uuid4())).split(".")[1]
    assert await desk.refusal(f"{head}.{other}.{signature}") is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(f"{head}.{body}.") is ErrorCode.UNAUTHENTICATED


def handmade(header: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims()).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 7, ["ES256"]])
async def test_no_algorithm(desk: Desk, algorithm: object) -> None:
    assert await desk.refusal(handmade({"alg": algorithm, "kid": "k1"})) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(jwt.encode(claims(), "", "none", {"kid": "k1"})) is ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("form", ["pem", "der", "jwk"])
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_public_key_is_no_shared_secret(http: httpx.AsyncClient, project: Project, form: str) -> None:
    public = EC_KEY.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    secret = {
        "pem": public.public_bytes(serialization.Encoding.PEM, info),
        "der": public.public_bytes(serialization.Encoding.DER, info),
        "jwk": json.dumps(project.keys[0]).encode(),
    }[form]
    signing_input = handmade({"alg": "HS256", "typ": "JWT", "kid": "k1"}).rpartition(".")[0]
    signature = hmac.digest(secret, signing_input.encode(), hashlib.sha256)
    forged = f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert await desk_of(http, project).refusal(forged) is ErrorCode.UNAUTHENTICATED
    with_secret = desk_of(http, project, supabase_jwt_secret=SHARED_SECRET)
    assert await with_secret.refusal(forged) is ErrorCode.UNAUTHENTICATED


async def test_the_legacy_secret_only_where_it_is_set(http: httpx.AsyncClient, project: Project) -> None:
    legacy = token(SHARED_SECRET, "HS256", None)
    assert await desk_of(http, project).refusal(legacy) is ErrorCode.UNAUTHENTICATED
    assert await desk_of(http, project, supabase_jwt_secret="").refusal(legacy) is ErrorCode.UNAUTHENTICATED
    desk = desk_of(http, project, supabase_jwt_secret=SHARED_SECRET)
    assert await desk.of(legacy) == Principal("user", USER)
    assert project.fetches == 0
    assert await desk.of(token()) == Principal("user", USER)
    assert await desk.refusal(token(SHARED_SECRET, "HS512", None)) is ErrorCode.UNAUTHENTICATED
    # the legacy API keys are tokens of the same secret, without a user
    anon = jwt.encode({"role": "anon", "iss": "supabase", "ref": "abcdefgh", "exp": 4_000_000_000}, SHARED_SECRET)
    assert await desk.refusal(anon) is ErrorCode.UNAUTHENTICATED


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic dXNlcjpwdw==", "Bearer é", "Token x", "eyJ"])
async def test_no_token(desk: Desk, header: str | None) -> None:
    with pytest.raises(AppError) as caught:
        await desk.verifier.verify(authorization=header, apikey="sb_publishable_x", user_id_header=str(USER))
    assert caught.value.error is ErrorCode.UNAUTHENTICATED
    assert desk.project.fetches == 0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="ascii", exclude_characters=" "), min_size=1) | st.binary().map(bytes.hex))
async def test_any_bearer(desk: Desk, text: str) -> None:
    assert await desk.refusal(text) is ErrorCode.UNAUTHENTICATED
    head, body, signature = token().split(".")
    for forged in (f"{text}.{body}.{signature}", f"{head}.{text}.{signature}", f"{head}.{body}.{text}"):
        assert await desk.refusal(forged) is ErrorCode.UNAUTHENTICATED


# --- the service --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("authorization", "apikey"), [(f"Bearer {SERVICE_KEY}", None), (None, SERVICE_KEY)])
async def test_the_service(desk: Desk, authorization: str | None, apikey: str | None) -> None:
    caller = await desk.verifier.verify(authorization=authorization, apikey=apikey, user_id_header=str(USER))
    assert caller == Principal("service", USER)
    assert desk.project.fetches == 0


@pytest.mark.parametrize("header", [None, "", "admin", "0b1c2d3e-4f50-4617-8293"])
async def test_the_service_acts_for_a_user(desk: Desk, header: str | None) -> None:
    with pytest.raises(AppError) as caught:
        await desk.verifier.verify(authorization=f"Bearer {SERVICE_KEY}", apikey=None, user_id_header=header)
    assert caught.value.error is ErrorCode.VALIDATION_ERROR
    assert caught.value.extra["errors"][0]["field"] == "X-User-Id"
    assert SERVICE_KEY not in repr(caught.value)


@pytest.mark.parametrize("key", [SERVICE_KEY[:-1], SERVICE_KEY + "0", SERVICE_KEY.upper(), "é", " "])
async def test_nearly_the_service_key(desk: Desk, key: str) -> None:
    with pytest.raises(AppError) as caught:
        await desk.verifier.verify(authorization=None, apikey=key, user_id_header=str(USER))
    assert caught.value.error is ErrorCode.UNAUTHENTICATED


async def test_no_service_key_opens_for_nobody(http: httpx.AsyncClient, project: Project) -> None:
    desk = desk_of(http, project, supabase_service_key="")
    for authorization, apikey in ((None, ""), ("Bearer ", None), ("Bearer ", "")):
        with pytest.raises(AppError) as caught:
            await desk.verifier.verify(authorization=authorization, apikey=apikey, user_id_header=str(USER))
        assert caught.value.error is ErrorCode.UNAUTHENTICATED


# --- the project's keys -------------------------------------------------------------------------------------


async def test_one_fetch_for_many(desk: Desk) -> None:
    await asyncio.gather(*(desk.of(token()) for _ in range(20)))
    assert desk.project.fetches == 1


async def test_keys_are_fetched_again_after_ten_minutes(desk: Desk) -> None:
    await desk.of(token())
    desk.project.now += 599
    await desk.of(token())
    assert desk.project.fetches == 1
    desk.project.now += 2
    desk.project.keys = [public_jwk(OTHER_KEY, "k2")]
    assert await desk.refusal(token()) is ErrorCode.UNAUTHENTICATED  # the key was taken back
    assert await desk.of(token(OTHER_KEY, key_id="k2"))
    assert desk.project.fetches == 2


async def test_unknown_keys_do_not_cause_floods(desk: Desk) -> None:
    await desk.of(token())
    await asyncio.gather(*(desk.refusal(token(OTHER_KEY, key_id=f"x{number}")) for number in range(20)))
    assert desk.project.fetches == 1
    desk.project.now += 31
    desk.project.keys.append(public_jwk(OTHER_KEY, "k2"))
    await asyncio.gather(*(desk.of(token(OTHER_KEY, key_id="k2")) for _ in range(20)))
    assert desk.project.fetches == 2


async def test_the_last_good_keys_are_kept(desk: Desk) -> None:
    await desk.of(token())
    desk.project.fails = True
    desk.project.now += 3600
    assert await desk.of(token())
    assert await desk.of(token())
    assert desk.project.fetches == 2  # a failure is not repeated by every request
    desk.project.now += 6
    assert await desk.of(token())
    assert desk.project.fetches == 3


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(503, html="<html>"),
        httpx.Response(200, html="<html>"),
        httpx.Response(302, headers={"location": "https://evil.example/jwks.json"}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"keys": "none"}),
        httpx.Response(200, json={"keys": [7]}),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k1"}]}),
    ],
)
async def test_no_keys_were_ever_seen(desk: Desk, answer: httpx.Response) -> None:
    desk.project.answer = answer
    with pytest.raises(AppError) as caught:
        await desk.of(token())
    assert caught.value.error is ErrorCode.SERVICE_UNAVAILABLE
    assert caught.value.retry_after
    desk.project.answer = None
    desk.project.now += 6
    assert await desk.of(token())


async def test_a_project_without_public_keys(desk: Desk) -> None:
    desk.project.keys = []
    assert await desk.refusal(token()) is ErrorCode.UNAUTHENTICATED


async def test_a_symmetric_key_in_the_document_signs_nothing(http: httpx.AsyncClient, project: Project) -> None:
    secret = base64.urlsafe_b64encode(SHARED_SECRET.encode()).rstrip(b"=").decode()
    project.keys.append({"kty": "oct", "k": secret, "alg": "HS256", "kid": "s1"})
    desk = desk_of(http, project)
    assert await desk.refusal(token(SHARED_SECRET, "HS256", "s1")) is ErrorCode.UNAUTHENTICATED
    assert await desk.refusal(token(EC_KEY, "ES256", "s1")) is ErrorCode.UNAUTHENTICATED
