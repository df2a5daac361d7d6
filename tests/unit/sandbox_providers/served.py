"""The stand-ins under a real server, in a process of its own or in a thread."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from app.config import child_environment
from app.sandbox.providers.mount import mount_providers
from app.sandbox_settings import SandboxSettings
from fastapi import FastAPI
from PIL import Image, ImageDraw

from tests.loopback import loopback
from tests.servers import free_port

T = TypeVar("T")

PATIENCE = 120.0  # seconds until a test counts as hung
OPENAI_KEY, TRIPO_KEY, ADMIN_KEY = "sk-sandbox", "tsk_sandbox", "sandbox-admin"
BARE = {"model": "v3.1-20260211", "texture": False, "pbr": False, "face_limit": 500}  # the least work


def sandbox_settings(home: Path, port: int, **changes: object) -> SandboxSettings:
    values = {
        "home": home,
        "port": port,
        "public_url": f"http://127.0.0.1:{port}",
        "database_url": "postgresql://nobody@localhost/unused",
        "work_seconds": 0.05,
        **changes,
    }
    return SandboxSettings.model_validate(values)


def application(settings: SandboxSettings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with stand_ins.running():
            yield

    app = FastAPI(lifespan=lifespan)
    stand_ins = mount_providers(app, settings)
    return app


@contextlib.contextmanager
def serving(home: Path, **changes: object) -> Generator[str]:
    """The URL of stand-ins that serve from a thread."""
    port = free_port()
    config = uvicorn.Config(
        application(sandbox_settings(home, port, **changes)), host="127.0.0.1", port=port, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive() or None)
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


@contextlib.contextmanager
def process(home: Path, port: int, **changes: object) -> Generator[subprocess.Popen[bytes]]:
    """Stand-ins in a process that a test may kill; this module is its program."""
    command = [sys.executable, "-m", "tests.unit.sandbox_providers.served"]
    child = subprocess.Popen(command, env=child_environment(sandbox_settings(home, port, **changes)))
    try:
        wait_for(lambda: _answers(port))
        yield child
    finally:
        child.kill()
        child.wait()


def wait_for(what: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Poll until there is something. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found is not None:
            return found
        time.sleep(0.02)
    raise TimeoutError


def _answers(port: int) -> bool | None:
    with contextlib.suppress(httpx.TransportError):
        return loopback.get(f"http://127.0.0.1:{port}/openai/v1/models").status_code == 401 or None
    return None


def picture(width: int = 320, height: int = 320, colour: str = "firebrick", format_name: str = "PNG") -> bytes:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).ellipse((60, 90, width - 60, height - 40), fill=colour, outline="black", width=4)
    out = io.BytesIO()
    image.save(out, format_name)
    return out.getvalue()


def mask(width: int = 320, height: int = 320, *, alpha: bool = True) -> bytes:
    image = Image.new("RGBA" if alpha else "RGB", (width, height), "black")
    if alpha:
        image.paste((0, 0, 0, 0), (60, 60, 200, 200))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@dataclass
class Back:
    """The sandbox's back door."""

    http: httpx.Client

    def arm(self, where: str, kind: str, **more: object) -> None:
        answer = self.http.post("/faults", json={"where": where, "kind": kind, **more})
        assert answer.status_code == 201, answer.text

    def turn(self, key: str | None = None, **changes: object) -> None:
        headers = {} if key is None else {"X-Api-Key": key}
        answer = self.http.post("/knobs", json=changes, headers=headers)
        assert answer.status_code == 200, answer.text

    def ledger(self, *, refused: bool = False) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.http.get("/ledger", params={"refused": refused}).raise_for_status().json()
        return rows


@dataclass
class Tripo:
    http: httpx.Client

    def post(self, path: str, body: object, **more: Any) -> httpx.Response:  # noqa: ANN401 - of httpx
        return self.http.post(path, json=body, **more)

    def created(self, path: str, body: object) -> str:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        task_id: str = answer.json()["data"]["task_id"]
        return task_id

    def task(self, task_id: str) -> dict[str, Any]:
        data: dict[str, Any] = self.http.get(f"/tasks/{task_id}").raise_for_status().json()["data"]
        return data

    def ended(self, task_id: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            task = self.task(task_id)
            return task if "completed_at" in task else None

        return wait_for(look)

    def made(self, path: str, body: object) -> dict[str, Any]:
        task = self.ended(self.created(path, body))
        assert task["status"] == "success", task
        return task

    def upload(self, content: bytes, name: str = "a.png", content_type: str = "image/png") -> str:
        answer = self.http.post("/files", files={"file": (name, content, content_type)})
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["data"]["file_token"]
        return token

    def money(self) -> tuple[float, float]:
        data = self.http.get("/account/balance").json()["data"]
        return data["balance"], data["frozen"]


@contextlib.contextmanager
def tripo_at(url: str, key: str = TRIPO_KEY) -> Generator[Tripo]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{url}/tripo/v3", headers=headers, trust_env=False, timeout=60) as http:
        yield Tripo(http)


def fetch(url: str) -> bytes:
    answer = loopback.get(url)
    assert answer.status_code == 200, answer.text
    return answer.content


if __name__ == "__main__":
    given = SandboxSettings()  # pyright: ignore[reportCallIssue] - from the environment
    uvicorn.run(application(given), host=given.host, port=given.port, log_level="warning")
