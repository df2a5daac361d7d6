"""The demo user of a running sandbox: what an app of its project would have at hand."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.cli_client import GatewayError
from app.config import Settings
from app.sandbox_settings import SandboxSettings

_EMAIL = "demo@makeit3d.example"


@dataclass(frozen=True, slots=True)
class DemoUser:
    id: str
    token: str


def sandbox_user_headers(settings: Settings) -> dict[str, str]:
    """Headers of the demo user of a running sandbox."""
    return bearer(sign_in(settings))


def sign_in(settings: Settings) -> DemoUser:
    """Sign the demo user in at the sandbox's Auth, making the account at the first time."""
    password = _password(settings.home / "demo-password")
    key = publishable_key(settings)
    headers = {"apikey": key, "Authorization": f"Bearer {key}"}
    credentials = {"email": _EMAIL, "password": password}
    try:
        with httpx.Client(base_url=f"{settings.supabase_url}/auth/v1", headers=headers, timeout=10) as http:
            answer = http.post("/token", params={"grant_type": "password"}, json=credentials)
            if answer.is_error:
                answer = http.post("/signup", json=credentials)
            answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise GatewayError(f"The sandbox's Auth did not sign the demo user in: HTTP {status}.") from None
    except httpx.HTTPError as error:
        raise GatewayError(
            f"The sandbox's Auth did not sign the demo user in ({type(error).__name__}). Is `make run` running?"
        ) from None
    session = answer.json()
    return DemoUser(id=session["user"]["id"], token=session["access_token"])


def publishable_key(settings: Settings) -> str:
    """What an app of the sandbox's project has."""
    dsn = settings.database_url.get_secret_value()
    sandbox = SandboxSettings.beside(home=settings.home, port=1, database_url=dsn)
    return sandbox.supabase_publishable_key.get_secret_value()


def _password(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24), encoding="ascii")
    return path.read_text(encoding="ascii")


def bearer(user: DemoUser) -> dict[str, str]:
    """Headers of the user."""
    return {"Authorization": f"Bearer {user.token}"}
