"""Every route asks who is there. The table names every route of the application; one without a row fails."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from app.main import create_app
from starlette.routing import BaseRoute

from tests.integration.factories import accept, image_plan, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.identities import FORGERIES, Project, project

TASK = "task-isolation-1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@dataclass(frozen=True)
class Row:
    """How to ask a route for something good. ``public`` routes ask nobody who they are."""

    public: bool = False
    path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])


def _generate(**body: object) -> Row:
    return Row(options={"json": {"task_id": TASK, **body}})


URL = "http://127.0.0.1:1/supabase/storage/v1/object/public/user_input_files_bucket/a.png"
ROUTES: dict[tuple[str, str], Row] = {
    ("GET", "/openapi.json"): Row(public=True),
    ("HEAD", "/openapi.json"): Row(public=True),
    ("GET", "/docs"): Row(public=True),
    ("HEAD", "/docs"): Row(public=True),
    ("GET", "/docs/oauth2-redirect"): Row(public=True),
    ("HEAD", "/docs/oauth2-redirect"): Row(public=True),
    ("GET", "/health/live"): Row(public=True),
    ("GET", "/health/ready"): Row(public=True),
    ("GET", "/metrics"): Row(public=True),
    ("GET", "/problems"): Row(public=True),
    ("GET", "/problems/{code}"): Row(public=True, path="/problems/task_not_found"),
    # the key in the link is the permission; test_isolation_between_users has its refusals
    ("GET", "/assets/{id}/content"): Row(public=True, path=f"/assets/{UUID(int=7)}/content?key=k"),
    ("POST", "/generate/text-to-image"): _generate(prompt="a fox"),
    ("POST", "/generate/image-to-image"): _generate(prompt="a fox", input_image_asset_url=URL),
    ("POST", "/generate/text-to-model"): _generate(prompt="a fox"),
    ("POST", "/generate/image-to-model"): _generate(input_image_asset_urls=[URL]),
    ("POST", "/generate/sketch-to-model"): _generate(input_sketch_asset_url=URL),
    ("POST", "/generate/refine-model"): _generate(tripo_draft_task_id="draft-1"),
    ("GET", "/task-types"): Row(),
    ("GET", "/task-types/{name}"): Row(path="/task-types/text-to-image"),
    ("POST", "/tasks"): Row(
        options={"json": {"task_type": "text-to-image", "task_id": TASK, "params": {"prompt": "a fox"}}}
    ),
    ("GET", "/tasks"): Row(),
    ("GET", "/tasks/{id}"): Row(path=f"/tasks/{TASK}"),
    ("GET", "/tasks/{id}/status"): Row(path=f"/tasks/{TASK}/status"),
    ("POST", "/tasks/{id}/cancel"): Row(path=f"/tasks/{TASK}/cancel"),
    ("GET", "/events"): Row(),
    ("POST", "/uploads"): Row(options={"files": {"file": ("a.png", PNG, "image/png")}, "data": {"task_id": TASK}}),
}
GUARDED = [name for name, row in ROUTES.items() if not row.public]
PUBLIC = [name for name, row in ROUTES.items() if row.public]


@dataclass
class World:
    gate: Gateway
    project: Project

    async def ask(self, name: tuple[str, str], headers: Mapping[str, str]) -> httpx.Response:
        method, path = name
        row = ROUTES[name]
        content = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        return await self.gate.http.request(method, row.path or path, headers=content, **row.options)

    async def contents(self) -> dict[str, int]:
        """How many rows there are of what a request can leave."""
        ours = [f"makeit3d.{name}" for name in ("tasks", "requests", "jobs", "files", "events")]
        tables = (*ours, "input_assets", "concept_images", "models")
        return {t: await self.gate.db.fetchval(f"select count(*) from {t} where true") for t in tables}  # noqa: S608


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncGenerator[World]:
    async with project() as signer:
        settings = settings_for(database, tmp_path, supabase_url=signer.supabase_url)
        async with gateway(settings) as gate:
            await accept(gate.db, image_plan(gate.user_id, TASK))
            yield World(gate, signer)


def routes_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from routes_of(included.routes)
        else:
            path, methods = getattr(route, "path", ""), getattr(route, "methods", None)
            assert path, f"A kind of route that this test can not read: {route!r}"
            assert methods, f"{path} has no methods: mounts and sockets need rows of another kind."
            yield from ((method, path) for method in methods)


def test_every_route_has_a_row(tmp_path: Path) -> None:
    app = create_app(settings_for("postgresql://x/y", tmp_path))
    assert set(routes_of(app.routes)) == set(ROUTES)
    documented = {(method.upper(), path) for path, item in app.openapi()["paths"].items() for method in item}
    assert documented <= set(ROUTES)
    guarded = {
        (method.upper(), path)
        for path, item in app.openapi()["paths"].items()
        for method, operation in item.items()
        if operation.get("security")
    }
    assert guarded == set(GUARDED), "the document and the table disagree about who needs a token"


async def test_nobody_gets_in_with_a_token_that_is_not_right(world: World) -> None:
    before = await world.contents()
    faults: list[str] = []
    for label, (forge, code) in FORGERIES.items():
        token = forge(world.project, world.gate.user_id)
        for name in GUARDED:
            answer = await world.ask(name, {"Authorization": f"Bearer {token}".strip()})
            body = answer.json()
            if (answer.status_code, body.get("code")) != (401, code) or "bearer" not in str(answer.headers).lower():
                faults.append(f"{label}: {name} answers {answer.status_code} {body.get('code')}")
            if token and token in answer.text:
                faults.append(f"{label}: {name} repeats the token")
    assert faults == []
    assert await world.contents() == before


async def test_nobody_gets_in_with_credentials_of_another_kind(world: World) -> None:
    key = world.gate.services.settings.supabase_service_key.get_secret_value()
    good = world.project.token(world.gate.user_id)
    user = str(world.gate.user_id)
    attempts: dict[str, dict[str, str]] = {
        "nothing": {},
        "only a user id": {"X-User-Id": user},
        "another scheme": {"Authorization": f"Basic {good}"},
        "no scheme": {"Authorization": good},
        "two tokens": {"Authorization": f"Bearer {good} {good}"},
        "a cookie": {"Cookie": f"sb-access-token={good}"},
        "a token as key": {"apikey": good, "X-User-Id": user},
        "the beginning of the key": {"apikey": key[:-1], "X-User-Id": user},
        "more than the key": {"apikey": f"{key}x", "X-User-Id": user},
        "the key in capitals": {"apikey": key.upper(), "X-User-Id": user},
        "an empty key": {"apikey": "", "X-User-Id": user},
    }
    before = await world.contents()
    faults = [
        f"{label}: {name} answers {answer.status_code}"
        for label, headers in attempts.items()
        for name in GUARDED
        if (answer := await world.ask(name, headers)).status_code != 401 or answer.json()["code"] != "unauthenticated"
    ]
    assert faults == []
    assert await world.contents() == before


async def test_the_service_says_for_whom(world: World) -> None:
    key = world.gate.services.settings.supabase_service_key.get_secret_value()
    faults: list[str] = []
    for carrier in ({"apikey": key}, {"Authorization": f"Bearer {key}"}):
        for user in (None, "", "me", "' or 1=1", f"{world.gate.user_id},{uuid4()}"):
            headers = dict(carrier) if user is None else carrier | {"X-User-Id": user}
            for name in GUARDED:
                answer = await world.ask(name, headers)
                body = answer.json()
                if answer.status_code != 422 or body["errors"][0]["field"] != "X-User-Id" or key in answer.text:
                    faults.append(f"{name} for {user!r} answers {answer.status_code}")
    assert faults == []


async def test_a_token_of_a_user_acts_for_nobody_else(world: World) -> None:
    """X-User-Id is the service's word: beside a user's token it means nothing."""
    stranger = await world.gate.another_user()
    headers = world.project.bearer(stranger) | {"X-User-Id": str(world.gate.user_id)}
    assert (await world.ask(("GET", "/tasks/{id}"), headers)).status_code == 404
    assert (await world.ask(("GET", "/tasks"), headers)).json()["tasks"] == []
    owner = world.project.bearer(world.gate.user_id) | {"X-User-Id": str(stranger)}
    assert (await world.ask(("GET", "/tasks/{id}"), owner)).status_code == 200


async def test_the_owner_gets_in(world: World) -> None:
    """The refusals above are not because the requests were bad."""
    expected = {
        ("POST", "/generate/image-to-image"): 422,  # the URL of another project
        ("POST", "/generate/image-to-model"): 422,
        ("POST", "/generate/sketch-to-model"): 422,
        ("POST", "/generate/refine-model"): 404,  # no such draft
        ("POST", "/generate/text-to-image"): 202,
        ("POST", "/generate/text-to-model"): 202,
        ("POST", "/tasks"): 202,
        ("POST", "/uploads"): 422,  # not a whole picture
    }
    headers = world.project.bearer(world.gate.user_id)
    for name in GUARDED:
        if name == ("GET", "/events"):
            async with world.gate.http.stream("GET", "/events", headers=headers) as answer:
                assert answer.status_code == 200
            continue
        answer = await world.ask(name, headers)
        assert answer.status_code == expected.get(name, 200), (name, answer.text)


async def test_public_routes_ask_nobody(world: World) -> None:
    for name in PUBLIC:
        plain = await world.ask(name, {})
        assert plain.status_code in (200, 404, 503), name
        odd = await world.ask(name, {"Authorization": "Bearer garbage", "apikey": "x", "X-User-Id": "x"})
        assert odd.status_code == plain.status_code, name


async def test_other_methods_and_paths_are_refused_without_a_word(world: World) -> None:
    paths = {path: {method for method, other in ROUTES if other == path} for _, path in ROUTES}
    for path, methods in paths.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} - methods:
            answer = await world.gate.http.request(method, path.format(id=TASK, code="x", name="x"))
            assert answer.status_code in (404, 405), (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
    for path in ("/", "/admin", "/.env", "/tasks/../metrics/x", "//evil.example/x", "/tasks/%2e%2e/%2e%2e/etc/passwd"):
        answer = await world.gate.http.get(path)
        assert answer.status_code in (401, 404), (path, answer.status_code)
        assert "location" not in answer.headers
