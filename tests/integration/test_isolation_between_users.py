"""What belongs to somebody else can not be told from what does not exist, whatever way it is asked for."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
from app.config import Settings
from PIL import Image

from tests.integration.factories import make_draft, settings_for
from tests.integration.http_gateway import Gateway, gateway
from tests.integration.identities import Project, project
from tests.integration.test_http_events import Reader

INPUTS, OUTPUTS = "user_input_files_bucket", "makeit3d_app_assets"
DRAFT = "draft-of-another-user"


def picture() -> bytes:
    sink = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(sink, "PNG")
    return sink.getvalue()


@dataclass
class World:
    """The owner has one of everything; the stranger has a valid token."""

    gate: Gateway
    project: Project
    stranger: UUID
    task: str
    job: str
    request: str
    upload: dict[str, Any]
    photo_key: str
    etag: str
    cursor: str

    @property
    def owner(self) -> UUID:
        return self.gate.user_id

    async def ask(
        self,
        method: str,
        path: str,
        user: UUID | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,  # noqa: ANN401 - httpx takes them
    ) -> httpx.Response:
        """As the stranger, unless another user is named."""
        bearer = self.project.bearer(user or self.stranger)
        return await self.gate.http.request(method, path, headers=bearer | dict(headers or {}), **options)

    def storage(self, path: str) -> str:
        return f"{self.project.supabase_url}/storage/v1/object/{path}"


@pytest.fixture
async def world(database: str, tmp_path: Path) -> AsyncGenerator[World]:
    async with project() as signer:
        settings = settings_for(database, tmp_path, supabase_url=signer.supabase_url)
        async with gateway(settings) as gate:
            yield await _furnished(gate, signer, settings)


async def _furnished(gate: Gateway, signer: Project, settings: Settings) -> World:
    bearer = signer.bearer(gate.user_id)
    task = f"task-{uuid4()}"
    accepted = await gate.http.post(
        "/generate/text-to-image",
        json={"task_id": task, "prompt": "a fox"},
        headers=bearer | {"Idempotency-Key": "key-of-the-owner"},
    )
    assert accepted.status_code == 202, accepted.text
    uploaded = await gate.http.post("/uploads", files={"file": picture()}, data={"task_id": task}, headers=bearer)
    assert uploaded.status_code == 201, uploaded.text
    photo = settings.home / "photo.png"
    photo.write_bytes(picture())
    key = f"{gate.user_id}/{uuid4()}.png"
    await gate.services.storage.upload(INPUTS, key, photo, content_type="image/png")
    await make_draft(gate.db, gate.user_id, DRAFT)
    status = await gate.http.get(f"/tasks/{task}/status", headers=bearer)
    cursor = await gate.db.fetchval(
        "select xid::text || '-' || id from makeit3d.events order by events.xid, id limit 1"
    )
    return World(
        gate,
        signer,
        await gate.another_user(),
        task,
        accepted.json()["job_id"],
        accepted.json()["request_id"],
        uploaded.json(),
        key,
        status.headers["etag"],
        cursor,
    )


def said(answer: httpx.Response) -> bytes:
    """Everything that an answer tells, but for the parts that name this one request."""
    document = orjson.loads(answer.content)
    for member in ("request_id", "instance"):
        document.pop(member)
    headers = {n: v for n, v in answer.headers.items() if n not in ("date", "x-request-id", "content-length")}
    return orjson.dumps([answer.status_code, headers, document], option=orjson.OPT_SORT_KEYS)


async def test_what_is_not_yours_does_not_exist(world: World) -> None:
    absent, nowhere = f"task-{uuid4()}", str(uuid4())
    faults: list[str] = []
    for foreign, missing in ((world.task, absent), (world.job, nowhere), (world.request, nowhere), (DRAFT, absent)):
        for method, path in (
            ("GET", "/tasks/{}"),
            ("GET", "/tasks/{}/status"),
            ("GET", "/tasks/{}/status?wait=5"),
            ("POST", "/tasks/{}/cancel"),
        ):
            theirs = await world.ask(method, path.format(foreign))
            nobodys = await world.ask(method, path.format(missing))
            if theirs.status_code != 404 or said(theirs) != said(nobodys):
                faults.append(f"{method} {path.format(foreign)}: {theirs.text} / {nobodys.text}")
    assert faults == []
    assert await world.gate.db.fetchval("select status from makeit3d.tasks where id = $1", world.task) == "queued"


async def test_a_validator_that_was_overheard_opens_nothing(world: World) -> None:
    for tag in (world.etag, "*"):
        answer = await world.ask("GET", f"/tasks/{world.task}/status", headers={"If-None-Match": tag})
        assert answer.status_code == 404
    mine = await world.ask("GET", f"/tasks/{world.task}/status", world.owner, headers={"If-None-Match": world.etag})
    assert mine.status_code == 304


BODIES: dict[str, dict[str, Any]] = {
    "text-to-image": {"prompt": "a fox"},
    "image-to-image": {"prompt": "a fox", "input_image_asset_url": "{own}"},
    "text-to-model": {"prompt": "a fox"},
    "image-to-model": {"input_image_asset_urls": ["{own}"]},
    "sketch-to-model": {"input_sketch_asset_url": "{own}"},
    "refine-model": {"tripo_draft_task_id": "draft-1"},
}


async def test_nothing_can_be_added_to_somebody_elses_task(world: World) -> None:
    """Also not by who repeats the owner's own words, key and all."""
    absent = await world.ask("GET", f"/tasks/task-{uuid4()}")
    rows = (
        "select (select count(*) from makeit3d.requests) + (select count(*)"
        " from makeit3d.jobs) + (select count(*) from makeit3d.files)"
    )
    before = await world.gate.db.fetchval(rows)
    own = (await world.ask("POST", "/uploads", files={"file": picture()})).json()["asset_url"]
    for headers in ({}, {"Idempotency-Key": "key-of-the-owner"}, {"Idempotency-Key": "another-key"}):
        for operation, body in BODIES.items():
            sent = orjson.loads(orjson.dumps(body).replace(b"{own}", own.encode())) | {"task_id": world.task}
            answer = await world.ask("POST", f"/generate/{operation}", headers=headers, json=sent)
            assert said(answer) == said(absent), operation
    answer = await world.ask("POST", "/uploads", files={"file": picture()}, data={"task_id": world.task})
    assert said(answer) == said(absent)
    assert await world.gate.db.fetchval(rows) == before + 1  # the stranger's own upload


async def test_keys_of_others_mean_nothing(world: World) -> None:
    answer = await world.ask(
        "POST",
        "/generate/text-to-image",
        headers={"Idempotency-Key": "key-of-the-owner"},
        json={"task_id": f"task-{uuid4()}", "prompt": "a fox"},
    )
    assert (answer.status_code, answer.json()["deduplicated"]) == (202, False)
    assert answer.json()["job_id"] != world.job


async def test_inputs_of_others_do_not_exist(world: World) -> None:
    file = await world.gate.db.fetchrow(
        "select id, bucket, key, content_key from makeit3d.files where task_id = $1", world.task
    )
    assert file is not None
    stored = f"{file['bucket']}/{file['key']}"
    base = world.gate.services.settings.public_base_url
    links = [
        world.upload["asset_url"],
        world.storage(stored),
        world.storage(f"authenticated/{stored}"),
        world.storage(f"sign/{stored}?token=eyJhbGciOiJIUzI1NiJ9.e30.c2ln"),
        world.storage(f"public/{INPUTS}/{world.photo_key}"),
        world.storage(f"{INPUTS}/{world.photo_key.replace('/', '%2F', 1)}"),  # refused as a spelling
        world.storage(f"authenticated/{INPUTS}/{world.photo_key}"),
        f"{base}/assets/{file['id']}/content?key={file['content_key']}",
        f"{base}/assets/{file['id']}/content?key=guessed",
        f"{base}/assets/{uuid4()}/content?key=guessed",
    ]
    missing = world.storage(f"public/{INPUTS}/{uuid4()}/{uuid4()}.png")
    absent = await world.ask(
        "POST", "/generate/image-to-model", json={"task_id": f"task-{uuid4()}", "input_image_asset_urls": [missing]}
    )
    assert (absent.status_code, absent.json()["code"]) == (404, "input_not_found")
    for link in links:
        for operation, field in (
            ("image-to-image", "input_image_asset_url"),
            ("image-to-model", "input_image_asset_urls"),
            ("sketch-to-model", "input_sketch_asset_url"),
            ("refine-model", "input_model_asset_url"),
        ):
            value = [link] if field.endswith("urls") else link
            body = {"task_id": f"task-{uuid4()}", "prompt": "a fox", field: value}
            answer = await world.ask("POST", f"/generate/{operation}", json=body)
            if "%2F" in link:
                assert answer.json()["code"] == "input_url_invalid"
            else:
                assert said(answer) == said(absent), (operation, link)
    assert await world.gate.db.fetchval("select count(*) from makeit3d.tasks where user_id = $1", world.stranger) == 0


async def test_a_row_that_a_client_wrote_proves_nothing(world: World) -> None:
    """Browsers insert their own input rows, and may write any URL and any task into them."""
    link = world.storage(f"authenticated/{INPUTS}/{world.photo_key}")
    await world.gate.db.execute(
        "insert into input_assets (task_id, user_id, input_asset_type, asset_url) values ($1, $2, 'photo', $3)",
        world.task,
        world.stranger,
        link,
    )
    body = {"task_id": f"task-{uuid4()}", "input_image_asset_urls": [link]}
    assert (await world.ask("POST", "/generate/image-to-model", json=body)).status_code == 404
    assert (await world.ask("GET", f"/tasks/{world.task}")).status_code == 404
    detail = await world.ask("GET", f"/tasks/{world.task}/status", world.owner)
    assert str(world.stranger) not in detail.text


async def test_drafts_of_others_do_not_exist(world: World) -> None:
    async def refine(draft: str, user: UUID | None = None) -> httpx.Response:
        body = {"task_id": f"task-{uuid4()}", "tripo_draft_task_id": draft}
        return await world.ask("POST", "/generate/refine-model", user, json=body)

    foreign, absent = await refine(DRAFT), await refine("draft-of-nobody")
    assert foreign.json()["code"] == "draft_not_found"
    assert said(foreign) == said(absent)
    assert (await refine(DRAFT, world.owner)).status_code == 202  # it was there to be found


async def test_lists_and_cursors_show_ones_own(world: World) -> None:
    for number in range(3):
        body = {"task_id": f"task-of-owner-{number}", "prompt": "a fox"}
        await world.ask("POST", "/generate/text-to-image", world.owner, json=body)
    page = (await world.ask("GET", "/tasks?limit=1", world.owner)).json()
    assert page["next_cursor"] is not None
    theirs = (await world.ask("GET", "/tasks", params={"cursor": page["next_cursor"]})).json()
    assert theirs == {"tasks": [], "next_cursor": None}


async def test_streams_carry_ones_own(world: World) -> None:
    """Read from before the owner's first event and asked for the owner's task, the first event is one's own."""
    body = {"task_id": f"task-{uuid4()}", "prompt": "a fox"}
    assert (await world.ask("POST", "/generate/text-to-image", json=body)).status_code == 202
    headers = world.project.bearer(world.stranger) | {"Last-Event-ID": world.cursor}
    async with world.gate.http.stream("GET", "/events", headers=headers) as answer:
        reader = Reader(answer.aiter_lines())
        assert (await reader.event()).type is None  # the greeting
        assert (await reader.event()).data["task_id"] == body["task_id"]
    mine = world.project.bearer(world.owner) | {"Last-Event-ID": world.cursor}
    async with world.gate.http.stream("GET", "/events", headers=mine) as answer:
        reader = Reader(answer.aiter_lines())
        await reader.event()
        assert (await reader.event()).data["task_id"] == world.task


async def test_a_link_with_another_key_leads_nowhere(world: World) -> None:
    """Not there, the wrong key, revoked, removed, or no id at all: nobody can tell which."""
    file = await world.gate.db.fetchrow("select id, content_key from makeit3d.files where task_id = $1", world.task)
    assert file is not None
    link, key = f"/assets/{file['id']}/content", file["content_key"]
    assert (await world.gate.http.get(f"{link}?key={key}")).status_code == 302
    absent = await world.gate.http.get(f"/assets/{uuid4()}/content?key={key}")
    answers = [
        await world.gate.http.get(path)
        for path in (
            link,
            f"{link}?key=",
            f"{link}?key={key[:-1]}",
            f"{link}?key={key}%00",
            f"{link}?key={key}&key=x",
            f"{link}?key={key.swapcase()}",
            f"/assets/{world.task}/content?key={key}",
            f"/assets/{file['id'].hex[:-1]}/content?key={key}",
        )
    ]
    for change in ("state = 'removed'", "state = 'uploading'", "state = 'stored', content_key = null"):
        await world.gate.db.execute(f"update makeit3d.files set {change} where id = $1", file["id"])  # noqa: S608
        answers += [await world.gate.http.get(f"{link}?key={key}"), await world.gate.http.get(f"{link}?key=")]
    assert {said(answer) for answer in answers} == {said(absent)}
