"""Auth as the vendor's Python client and a verifier of tokens see it."""

from __future__ import annotations

import time
from uuid import UUID, uuid4

import jwt
import pytest
from supabase_auth.errors import AuthApiError

from tests.contract.supabase_target import SupabaseTarget, User
from tests.loopback import loopback

NEW = {"X-Supabase-Api-Version": "2024-01-01"}


def test_tokens_verify_through_the_published_keys(supabase: SupabaseTarget, user: User) -> None:
    keys = loopback.get(f"{supabase.auth}/.well-known/jwks.json").raise_for_status().json()
    kid = jwt.get_unverified_header(user.access_token)["kid"]
    key = jwt.PyJWKSet.from_dict(keys)[kid]
    claims = jwt.decode(
        user.access_token,
        key,
        algorithms=["ES256", "RS256"],
        audience="authenticated",
        issuer=supabase.auth,
        options={"require": ["exp", "sub", "aud", "iss"]},
    )
    assert (claims["sub"], claims["role"], claims["email"]) == (user.id, "authenticated", user.email)
    assert claims["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert (claims["aal"], claims["is_anonymous"], claims["amr"][0]["method"]) == ("aal1", False, "password")
    UUID(claims["session_id"])
    assert claims["iat"] <= time.time() < claims["exp"]
    assert "d" not in keys["keys"][0]  # the private part


async def test_sign_in_read_user_and_sign_out(supabase: SupabaseTarget, user: User) -> None:
    async with supabase.client(supabase.publishable_key) as client:
        signed = await client.auth.sign_in_with_password({"email": user.email, "password": user.password})
        assert signed.session is not None
        assert signed.session.token_type == "bearer"
        assert signed.session.expires_in > 0
        read = await client.auth.get_user()
        assert read is not None
        assert (read.user.id, read.user.email, read.user.role) == (user.id, user.email, "authenticated")
        token = signed.session.access_token
        await client.auth.sign_out({"scope": "local"})
    with supabase.http(token) as http:
        reply = http.get(f"{supabase.auth}/user", headers=NEW)
        assert (reply.status_code, reply.json()["code"]) == (403, "session_not_found")
    with supabase.http(user.access_token) as http:  # another session of the same user lives on
        assert http.get(f"{supabase.auth}/user").json()["id"] == user.id


async def test_sign_up(supabase: SupabaseTarget) -> None:
    email = f"contract-{uuid4().hex}@example.com"
    async with supabase.client(supabase.publishable_key) as client:
        signed = await client.auth.sign_up({"email": email, "password": "long enough", "options": {"data": {"n": 1}}})
    assert signed.user is not None
    try:
        assert signed.user.email == email
        assert signed.user.user_metadata["n"] == 1
    finally:
        supabase.delete_user(signed.user.id)


async def test_refresh_rotates_and_forgives_a_race(supabase: SupabaseTarget, user: User) -> None:
    async with supabase.client(supabase.publishable_key) as client:
        signed = await client.auth.sign_in_with_password({"email": user.email, "password": user.password})
        assert signed.session is not None
        first = signed.session.refresh_token
        renewed = await client.auth.refresh_session(first)
        assert renewed.session is not None
        assert renewed.session.refresh_token != first
        assert renewed.user is not None
        assert renewed.user.id == user.id
        raced = await client.auth.refresh_session(first)  # the same token again, at once
        assert raced.session is not None
        with pytest.raises(AuthApiError) as caught:
            await client.auth.refresh_session("no-such-token")
        assert (caught.value.status, caught.value.code) == (400, "refresh_token_not_found")


async def test_the_admin_makes_finds_and_deletes_users(supabase: SupabaseTarget) -> None:
    email = f"contract-{uuid4().hex}@example.com"
    async with supabase.client() as client:
        made = await client.auth.admin.create_user(
            {"email": email, "password": "long enough", "email_confirm": True, "app_metadata": {"plan": "pro"}}
        )
        found = await client.auth.admin.get_user_by_id(made.user.id)
        assert (found.user.email, found.user.app_metadata["plan"]) == (email, "pro")
        await client.auth.admin.delete_user(made.user.id)
        with pytest.raises(AuthApiError) as caught:
            await client.auth.admin.get_user_by_id(made.user.id)
        assert caught.value.code == "user_not_found"
    with supabase.http(apikey=supabase.publishable_key) as http:
        assert http.post(f"{supabase.auth}/admin/users", json={"email": email, "password": "x"}).status_code in (
            401,
            403,
        )


def test_errors_in_both_shapes(supabase: SupabaseTarget, user: User) -> None:
    body = {"email": user.email, "password": "wrong"}
    with supabase.http(apikey=supabase.publishable_key) as http:
        new = http.post(f"{supabase.auth}/token?grant_type=password", json=body, headers=NEW)
        assert new.status_code == 400
        assert new.headers["x-supabase-api-version"] == "2024-01-01"
        assert (new.json()["code"], new.json()["message"]) == ("invalid_credentials", "Invalid login credentials")
        old = http.post(f"{supabase.auth}/token?grant_type=password", json=body)
        assert old.status_code == 400
        assert old.json() == {"code": 400, "error_code": "invalid_credentials", "msg": "Invalid login credentials"}

        weak = http.post(f"{supabase.auth}/signup", json={"email": f"x{user.email}", "password": "1"}, headers=NEW)
        assert (weak.status_code, weak.json()["code"]) == (422, "weak_password")
    with supabase.http() as http:
        again = {"email": user.email, "password": "long enough"}
        taken = http.post(f"{supabase.auth}/admin/users", json=again, headers=NEW)
        assert taken.status_code == 422
    with supabase.http("not.a.token") as http:
        bad = http.get(f"{supabase.auth}/user", headers=NEW)
        assert (bad.status_code, bad.json()["code"]) == (403, "bad_jwt")
