"""The Supabase under test: the sandbox's stand-in, or any other that ``CONTRACT_SUPABASE_*`` names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from uuid import uuid4

import httpx
from supabase import AsyncClient, acreate_client
from supabase.lib.client_options import AsyncClientOptions

TIMEOUT = httpx.Timeout(60.0, connect=10.0)


@dataclass(frozen=True, slots=True)
class User:
    id: str
    email: str
    password: str
    access_token: str


@dataclass(frozen=True, slots=True)
class SupabaseTarget:
    """Where it is and the two keys of the project."""

    url: str
    service_key: str
    publishable_key: str

    @property
    def storage(self) -> str:
        return f"{self.url}/storage/v1"

    @property
    def auth(self) -> str:
        return f"{self.url}/auth/v1"

    @contextlib.contextmanager
    def http(self, token: str | None = None, apikey: str | None = None) -> Generator[httpx.Client]:
        """A bare client: as the service, or with a user's token as a browser sends it."""
        key = apikey or (self.service_key if token is None else self.publishable_key)
        headers = {"apikey": key, "Authorization": f"Bearer {token or key}"}
        with httpx.Client(headers=headers, timeout=TIMEOUT) as client:
            yield client

    @contextlib.asynccontextmanager
    async def client(self, key: str | None = None) -> AsyncGenerator[AsyncClient]:
        """The vendor's own Python client; as the service unless told otherwise."""
        async with httpx.AsyncClient(timeout=TIMEOUT) as http:
            options = AsyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
            yield await acreate_client(self.url, key or self.service_key, options=options)

    def create_user(self) -> User:
        email, password = f"contract-{uuid4().hex}@example.com", uuid4().hex
        with self.http() as http:
            body = {"email": email, "password": password, "email_confirm": True}
            made = http.post(f"{self.auth}/admin/users", json=body).raise_for_status().json()
        with self.http(apikey=self.publishable_key) as http:
            reply = http.post(f"{self.auth}/token?grant_type=password", json={"email": email, "password": password})
            return User(made["id"], email, password, reply.raise_for_status().json()["access_token"])

    def delete_user(self, user_id: str) -> None:
        with self.http() as http:
            http.delete(f"{self.auth}/admin/users/{user_id}").raise_for_status()

    @contextlib.contextmanager
    def bucket(self, **properties: object) -> Generator[str]:
        """A bucket of one's own; emptied and removed afterwards."""
        name = f"contract-{uuid4().hex[:12]}"
        with self.http() as http:
            body = {"id": name, "name": name, "public": False, **properties}
            http.post(f"{self.storage}/bucket", json=body).raise_for_status()
        try:
            yield name
        finally:
            self.clear(name)
            with self.http() as http:
                http.delete(f"{self.storage}/bucket/{name}").raise_for_status()

    def clear(self, bucket: str, prefix: str = "") -> None:
        """Remove what lies under the prefix."""
        with self.http() as http:
            while True:
                page = http.post(f"{self.storage}/object/list-v2/{bucket}", json={"prefix": prefix}).raise_for_status()
                keys = [found["name"] for found in page.json()["objects"]]
                if not keys:
                    return
                http.request("DELETE", f"{self.storage}/object/{bucket}", json={"prefixes": keys}).raise_for_status()


__all__ = ["SupabaseTarget", "User"]
