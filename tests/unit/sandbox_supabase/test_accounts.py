"""What Auth keeps, and what it forgets."""

from __future__ import annotations

import stat
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess

PASSWORD = "correct horse"


@pytest.fixture
def auth(sandbox: SandboxProcess) -> httpx.Client:
    key = sandbox.settings.supabase_publishable_key.get_secret_value()
    return httpx.Client(
        base_url=f"{sandbox.supabase_url}/auth/v1",
        headers={"apikey": key, "X-Supabase-Api-Version": "2024-01-01"},
        timeout=30,
    )


def sign_up(auth: httpx.Client, email: str) -> dict[str, str]:
    return auth.post("/signup", json={"email": email, "password": PASSWORD}).raise_for_status().json()


async def test_passwords_are_hashed(sandbox: SandboxProcess, auth: httpx.Client) -> None:
    email = f"{uuid4().hex}@example.com"
    with auth:
        sign_up(auth, email)
        sign_up(auth, f"2{email}")
    connection = await asyncpg.connect(sandbox.settings.database_url.get_secret_value())
    try:
        rows = await connection.fetch(
            "select encrypted_password from auth.users where email = any($1::text[])", [email, f"2{email}"]
        )
    finally:
        await connection.close()
    first, second = (row["encrypted_password"] for row in rows)
    assert PASSWORD not in first
    assert first != second  # salted


async def test_a_stale_refresh_token_ends_the_session(sandbox: SandboxProcess, auth: httpx.Client) -> None:
    with auth:
        session = sign_up(auth, f"{uuid4().hex}@example.com")
        old = {"refresh_token": session["refresh_token"]}
        renewed = auth.post("/token?grant_type=refresh_token", json=old).raise_for_status().json()
        connection = await asyncpg.connect(sandbox.settings.database_url.get_secret_value())
        try:
            await connection.execute(
                "update auth.refresh_tokens set revoked_at = revoked_at - interval '11 seconds' where token = $1",
                session["refresh_token"],
            )
        finally:
            await connection.close()
        reused = auth.post("/token?grant_type=refresh_token", json=old)
        assert (reused.status_code, reused.json()["code"]) == (400, "refresh_token_already_used")
        heir = auth.post("/token?grant_type=refresh_token", json={"refresh_token": renewed["refresh_token"]})
        assert (heir.status_code, heir.json()["code"]) == (400, "refresh_token_not_found")


@pytest.mark.parametrize(("scope", "mine", "other"), [("local", 403, 200), ("others", 200, 403), ("global", 403, 403)])
def test_sign_out_reaches_as_far_as_asked(auth: httpx.Client, scope: str, mine: int, other: int) -> None:
    email = f"{uuid4().hex}@example.com"
    with auth:
        first = sign_up(auth, email)
        second = auth.post("/token?grant_type=password", json={"email": email, "password": PASSWORD}).json()

        def status(session: dict[str, str]) -> int:
            headers = {"Authorization": f"Bearer {session['access_token']}"}
            return auth.get("/user", headers=headers).status_code

        headers = {"Authorization": f"Bearer {first['access_token']}"}
        assert auth.post("/logout", params={"scope": scope}, headers=headers).status_code == 204
        assert (status(first), status(second)) == (mine, other)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/signup", {"email": "nobody", "password": PASSWORD}, "validation_failed"),
        ("/signup", {"email": ["a@b.c"], "password": PASSWORD}, "validation_failed"),
        ("/signup", {"email": "nul\0@example.com", "password": PASSWORD}, "validation_failed"),
        ("/signup", {"email": "a@example.com", "password": PASSWORD, "data": "x"}, "validation_failed"),
        ("/token?grant_type=password", {"email": "nobody@example.com", "password": PASSWORD}, "invalid_credentials"),
        ("/token?grant_type=password", {}, "validation_failed"),
        ("/token?grant_type=magic", {}, "invalid_request"),
    ],
)
def test_nonsense_is_refused_politely(auth: httpx.Client, path: str, body: dict[str, object], code: str) -> None:
    with auth:
        reply = auth.post(path, json=body)
    assert (reply.status_code, reply.json()["code"]) == (400, code)


def test_the_service_key_is_not_for_browsers(sandbox: SandboxProcess) -> None:
    headers = {
        "apikey": sandbox.settings.supabase_service_key.get_secret_value(),
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    }
    assert loopback.get(f"{sandbox.supabase_url}/storage/v1/bucket", headers=headers).status_code == 401


def test_keys_are_private_files(sandbox: SandboxProcess) -> None:
    for name in ("auth-key.pem", "link-secret"):
        assert stat.S_IMODE((sandbox.settings.home / name).stat().st_mode) == 0o600


def test_every_reply_says_sandbox(sandbox: SandboxProcess) -> None:
    for path in ("/storage/v1/bucket", "/storage/v1/object/a/b", "/auth/v1/user", "/auth/v1/.well-known/jwks.json"):
        assert loopback.get(f"{sandbox.supabase_url}{path}").headers["X-MakeIt3D-Sandbox"] == "sandbox"


def test_the_front_page_says_what_it_is(sandbox: SandboxProcess) -> None:
    page = loopback.get(f"{sandbox.url}/").text
    assert "sandbox" in page
    assert f"{sandbox.url}/supabase/storage/v1" in page


def test_browsers_may_call(sandbox: SandboxProcess) -> None:
    """The stand-in answers for the proxy that stands before the real services."""
    wanted = "authorization,apikey,content-type,x-client-info,x-upsert,x-metadata,cache-control,range"
    headers = {
        "Origin": "https://app.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": wanted,
    }
    url = f"{sandbox.supabase_url}/storage/v1/object/none/a"
    preflight = loopback.options(url, headers=headers)
    assert preflight.is_success
    assert preflight.headers["access-control-allow-origin"] in ("*", "https://app.example")
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert allowed == "*" or all(name in allowed for name in wanted.split(","))
    refused = loopback.get(url, headers={"Origin": "https://app.example"})
    assert refused.headers["access-control-allow-origin"] in ("*", "https://app.example")
