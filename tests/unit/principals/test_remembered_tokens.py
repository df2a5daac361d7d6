"""A token is checked once, and never believed for longer than its end and its key last."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest
from app.domain.principal import Principal
from app.errors import AppError, ErrorCode
from app.services.principals import PrincipalVerifier
from app.services.verified_tokens import VerifiedToken, VerifiedTokens

from tests.unit.principals.test_principals import (
    OTHER_KEY,
    SERVICE_KEY,
    SHARED_SECRET,
    USER,
    Project,
    configured,
    public_jwk,
    token,
)

LEEWAY = 10  # seconds


@dataclass
class Desk:
    """A verifier whose wall clock can be turned."""

    project: Project
    http: httpx.AsyncClient
    ahead: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    verifier: PrincipalVerifier = field(init=False)

    def __post_init__(self) -> None:
        self.verifier = PrincipalVerifier(
            configured(**self.settings),
            self.http,
            clock=lambda: self.project.now,
            now=lambda: time.time() + self.ahead,
        )

    def known(self, bearer: str, user_id: str | None = None) -> Principal | None:
        named = {} if user_id is None else {b"x-user-id": user_id.encode()}
        return self.verifier.known({b"authorization": f"Bearer {bearer}".encode(), **named})

    async def verify(self, bearer: str) -> Principal:
        return await self.verifier.verify(authorization=f"Bearer {bearer}", apikey=None, user_id_header=None)


@pytest.fixture
async def desk() -> AsyncGenerator[Desk]:
    project = Project()
    async with httpx.AsyncClient(transport=httpx.MockTransport(project)) as http:
        yield Desk(project, http)


async def test_a_token_is_known_once_it_was_verified(desk: Desk) -> None:
    mine = token()
    assert desk.known(mine) is None
    principal = await desk.verify(mine)
    assert desk.known(mine) == principal == Principal("user", USER)
    assert desk.known(mine[:-4] + "AAAA") is None
    for refused in (token(key=OTHER_KEY), token(exp=int(time.time()) - 60), token(aud="anon")):
        with pytest.raises(AppError):
            await desk.verify(refused)
        assert desk.known(refused) is None


async def test_it_is_forgotten_when_it_ends_and_not_before(desk: Desk) -> None:
    mine = token(exp=int(time.time()) + 3600)
    await desk.verify(mine)
    desk.ahead = 3600 + LEEWAY - 60
    assert desk.known(mine) is not None
    desk.ahead = 3600 + LEEWAY + 1
    assert desk.known(mine) is None
    desk.ahead = 0
    assert desk.known(mine) is None  # it was thrown away


async def test_a_rotated_key_takes_its_tokens_along(desk: Desk) -> None:
    mine = token()
    await desk.verify(mine)
    desk.project.keys = [public_jwk(OTHER_KEY, "k1")]  # the same id, another key
    desk.project.now += 601
    assert desk.known(mine) is None  # the keys are due to be asked for
    with pytest.raises(AppError) as caught:
        await desk.verify(mine)
    assert caught.value.error is ErrorCode.UNAUTHENTICATED
    assert desk.known(mine) is None


async def test_unchanged_keys_keep_their_tokens(desk: Desk) -> None:
    mine = token()
    await desk.verify(mine)
    desk.project.now += 601
    assert await desk.verify(mine) == Principal("user", USER)
    assert desk.project.fetches == 2
    assert desk.known(mine) is not None


async def test_a_token_of_the_shared_secret_is_known_too(desk: Desk) -> None:
    legacy = Desk(desk.project, desk.http, settings={"supabase_jwt_secret": SHARED_SECRET})
    mine = token(key=SHARED_SECRET, algorithm="HS256", key_id=None)
    await legacy.verify(mine)
    assert legacy.known(mine) == Principal("user", USER)
    assert desk.project.fetches == 0


def test_the_service_is_always_known_where_it_says_for_whom(desk: Desk) -> None:
    assert desk.known(SERVICE_KEY, str(USER)) == Principal("service", USER)
    assert desk.known(SERVICE_KEY, "me") is None
    assert desk.known(SERVICE_KEY) is None
    assert desk.known(SERVICE_KEY[:-1] + "x", str(USER)) is None


def test_a_flood_of_tokens_takes_a_bounded_room() -> None:
    tokens = VerifiedTokens(most=50)
    often = VerifiedToken(Principal("user", UUID(int=1)), float("inf"), "k1", 1)
    tokens.add(b"often", often)
    for number in range(500):
        tokens.add(b"flood-%d" % number, often)
        assert tokens.find(b"often", generation=1) is often
        assert len(tokens) <= 50
    assert tokens.find(b"often", generation=2) is None


async def test_the_text_of_a_token_is_kept_nowhere(desk: Desk) -> None:
    text = token()
    await desk.verify(text)
    kept = [
        *gc.get_referents(desk.verifier),
        *vars(desk.verifier).values(),
        *vars(vars(desk.verifier)["_tokens"]).values(),
    ]
    assert text not in repr(kept)
    assert text.rpartition(".")[2] not in repr(kept)
