"""A body that does not come holds nothing for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
from app import problems
from app.middleware import BodyTime
from fastapi import FastAPI, Request


@pytest.fixture
async def http() -> AsyncGenerator[httpx.AsyncClient]:
    app = FastAPI()
    problems.install(app)

    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    async def upload(request: Request) -> int:
        return len(await request.body())

    app.post("/json")(echo)
    app.post("/uploads")(upload)
    app.add_middleware(BodyTime, seconds=0.2, unhurried={"/uploads"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


async def body(end: asyncio.Event) -> AsyncGenerator[bytes]:
    yield b"{"
    await end.wait()
    yield b"}"


async def test_a_body_that_does_not_come_is_refused_and_the_connection_closed(http: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": "2"}
    answer = await http.post("/json", content=body(asyncio.Event()), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (408, "upload_too_slow")
    assert answer.headers["connection"] == "close"


async def test_uploads_have_a_pace_of_their_own(http: httpx.AsyncClient) -> None:
    end = asyncio.Event()
    asyncio.get_running_loop().call_later(0.5, end.set)
    assert (await http.post("/uploads", content=body(end))).json() == 2
