"""Tripo's creates: real results, strict refusals, money, pools and rates."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Generator
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image

from tests.unit.sandbox_providers.served import BARE, TRIPO_KEY, Back, Tripo, fetch, picture, tripo_at

TEXT, IMAGE, VIEWS = "/generation/text-to-model", "/generation/image-to-model", "/generation/multiview-to-model"
PICTURE = "/generation/image-to-image"


def gltf(content: bytes) -> dict[str, Any]:
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    (size,) = struct.unpack_from("<I", content, 12)
    document: dict[str, Any] = json.loads(content[20 : 20 + size])
    return document


@pytest.fixture(scope="module")
def token(served: str) -> str:
    with tripo_at(served) as client:
        return client.upload(picture())


@pytest.fixture(scope="module")
def draft(served: str, token: str) -> dict[str, Any]:
    body = {"input": token, "model": "v3.1-20260211", "pbr": False, "face_limit": 2000, "model_seed": -88213407}
    with tripo_at(served) as client:
        return client.made(IMAGE, body)


# --- results --------------------------------------------------------------------------------------------------------


def test_a_model_from_a_picture(draft: dict[str, Any], token: str, back: Back) -> None:
    assert UUID(draft["task_id"])
    assert draft["input"] == {
        "input": token,
        "model": "v3.1-20260211",
        "pbr": False,
        "face_limit": 2000,
        "model_seed": -88213407,
    }
    assert draft["credits_consumed"] == 30
    document = gltf(fetch(draft["output"]["model_url"]))
    assert document["images"]
    assert Image.open(io.BytesIO(fetch(draft["output"]["rendered_image_url"]))).size == (768, 768)
    (row,) = [row for row in back.ledger() if row["reference"] == draft["task_id"]]
    assert (row["charged"], row["unit"], row["state"], row["reply"]) == ("30.00", "credits", "charged", "sent")
    assert row["delivered"] >= 2


def test_a_model_from_words(tripo: Tripo) -> None:
    task = tripo.made(TEXT, {"prompt": "a boat", **BARE})
    assert task["credits_consumed"] == 10
    assert "images" not in gltf(fetch(task["output"]["model_url"]))


def test_a_model_from_views_in_both_forms(tripo: Tripo, token: str) -> None:
    side = tripo.upload(picture(colour="navy"))
    named = tripo.made(VIEWS, {"inputs": [{"front": token}, {"back": side}], **BARE})
    slots = tripo.made(VIEWS, {"inputs": [token, None, side, ""], **BARE})
    assert named["credits_consumed"] == 20
    assert fetch(named["output"]["model_url"]) == fetch(slots["output"]["model_url"])


def test_a_sketch_is_rendered_and_its_task_becomes_a_model(tripo: Tripo, token: str) -> None:
    sketch = {"input": token, "sketch_to_render": True, "prompt": "a red ball", "output_format": "png"}
    rendered = tripo.made(PICTURE, sketch)
    assert rendered["credits_consumed"] == 5
    assert Image.open(io.BytesIO(fetch(rendered["output"]["generated_image_url"]))).format == "PNG"
    tripo.made(IMAGE, {"input": rendered["task_id"], **BARE})


def test_pictures_from_words_and_of_four_sides(tripo: Tripo) -> None:
    made = tripo.made("/generation/text-to-image", {"prompt": "a ball", "size": "512x512", "output_format": "jpeg"})
    image = Image.open(io.BytesIO(fetch(made["output"]["generated_image_url"])))
    assert (image.format, image.size) == ("JPEG", (512, 512))
    sides = tripo.made("/generation/image-to-multiview", {"input": made["task_id"]})
    names = {f"{view}_view_url" for view in ("front", "left", "back", "right")}
    assert set(sides["output"]) == names
    assert len({fetch(sides["output"][name]) for name in names}) == 4
    edited = tripo.made("/generation/edit-multiview", {"input": sides["task_id"], "prompt": "blue clay"})
    assert set(edited["output"]) == names
    tripo.made(VIEWS, {"inputs": [{"task_id": sides["task_id"]}], **BARE})


def test_a_draft_and_an_import_get_a_new_texture(tripo: Tripo, draft: dict[str, Any], token: str) -> None:
    body = {"input": draft["task_id"], "model": "v3.5-20260815", "texture": True, "texture_quality": "detailed"}
    refined = tripo.made("/models/texture", {**body, "texture_prompt": {"text": "weathered oak"}, "texture_seed": 5})
    assert refined["credits_consumed"] == 20
    mesh = fetch(draft["output"]["model_url"])
    imported = tripo.made("/models/import", {"input": tripo.upload(mesh, "model.glb", "model/gltf-binary")})
    assert imported["credits_consumed"] == 0
    assert fetch(imported["output"]["model_url"]) == mesh
    textured = tripo.made(
        "/models/texture",
        {
            "input": imported["task_id"],
            "model": "v3.5-20260815",
            "texture_quality": "fast",
            "texture_prompt": {"image": token},
        },
    )
    before, after = gltf(mesh), gltf(fetch(textured["output"]["model_url"]))
    assert len(before["meshes"]) == len(after["meshes"])
    assert textured["credits_consumed"] == 10


@pytest.mark.parametrize(
    ("format_name", "more", "price", "start"),
    [
        ("GLTF", {}, 5, b'{"'),
        ("GLB", {"scale_factor": 2}, 10, b"glTF"),
        ("STL", {}, 5, b"MakeIt3D sandbox"),
        ("OBJ", {"pivot_to_center_bottom": True}, 10, b"PK"),
        ("3MF", {}, 5, b"PK"),
    ],
)
def test_conversions(
    tripo: Tripo, draft: dict[str, Any], format_name: str, more: dict[str, object], price: int, start: bytes
) -> None:
    task = tripo.made("/models/convert", {"input": draft["task_id"], "format": format_name, **more})
    assert task["credits_consumed"] == price
    content = fetch(task["output"]["model_url"])
    assert content.startswith(start)
    if format_name == "OBJ":
        assert set(zipfile.ZipFile(io.BytesIO(content)).namelist()) == {"model.obj", "model.mtl", "texture0.jpg"}
    refused = tripo.post("/models/texture", {"input": task["task_id"], "model": "v3.5-20260815"})
    assert refused.json()["code"] == (0 if format_name == "GLB" else 2006)


# --- refusals -------------------------------------------------------------------------------------------------------

GOOD = {"prompt": "a boat", **BARE}
P1 = {"prompt": "a boat", "model": "P1-20260311"}


@pytest.mark.parametrize(
    ("path", "body", "http", "code"),
    [
        (TEXT, {"prompt": "a boat"}, 400, 1004),
        (TEXT, GOOD | {"model": "tripo-v3.1"}, 400, 1004),
        (TEXT, GOOD | {"prompt": ""}, 400, 1004),
        (TEXT, GOOD | {"prompt": "x" * 1025}, 400, 1004),
        (TEXT, GOOD | {"prompt": "a\x00b"}, 400, 2009),
        (TEXT, GOOD | {"negative_prompt": "x" * 256}, 400, 1004),
        (TEXT, GOOD | {"model_seed": 2**31}, 400, 1004),
        (TEXT, GOOD | {"face_limit": 1_500_001}, 400, 1004),
        (TEXT, GOOD | {"face_limit": "500"}, 400, 1004),
        (TEXT, GOOD | {"texture": "yes"}, 400, 1004),
        (TEXT, GOOD | {"texture_quality": "best"}, 400, 1004),
        (TEXT, GOOD | {"texture_quality": "fast"}, 400, 1004),
        (TEXT, GOOD | {"quad": True}, 400, 1004),
        (TEXT, {"prompt": "a", "model": "v3.1-20260211", "generate_parts": True}, 400, 1004),
        (TEXT, {"prompt": "a", "model": "v2.5-20250123", "geometry_quality": "detailed"}, 400, 1004),
        (TEXT, P1 | {"quad": False}, 400, 1004),
        (TEXT, P1 | {"smart_low_poly": None}, 400, 1004),
        (TEXT, P1 | {"face_limit": 20_001}, 400, 1004),
        (IMAGE, BARE, 400, 1004),
        (IMAGE, BARE | {"input": "data:image/png;base64,AAAA"}, 400, 1004),
        (IMAGE, BARE | {"input": "file_unknown"}, 400, 1004),
        (IMAGE, BARE | {"input": "https://example.org/a.png"}, 400, 1004),
        (IMAGE, BARE | {"input": "TOKEN", "orientation": "up"}, 400, 1004),
        (IMAGE, BARE | {"input": str(uuid4())}, 404, 2001),
        (IMAGE, BARE | {"input": "DRAFT"}, 400, 2006),
        (VIEWS, BARE | {"inputs": [{"left": "TOKEN"}, {"back": "TOKEN"}]}, 400, 1004),
        (VIEWS, BARE | {"inputs": [{"front": "TOKEN"}]}, 400, 1004),
        (VIEWS, BARE | {"inputs": [{"front": "TOKEN"}, {"top": "TOKEN"}]}, 400, 1004),
        (VIEWS, BARE | {"inputs": ["TOKEN", "TOKEN"]}, 400, 1004),
        (VIEWS, BARE | {"inputs": ["TOKEN", "TOKEN", "", "", "", ""]}, 400, 1004),
        (VIEWS, BARE | {"inputs": [{"front": "TOKEN"}, "TOKEN", "", ""]}, 400, 1004),
        (VIEWS, BARE | {"inputs": "TOKEN"}, 400, 1004),
        (PICTURE, {"input": "TOKEN"}, 400, 1004),
        (PICTURE, {"input": "TOKEN", "prompt": "x" * 1801}, 400, 1004),
        (PICTURE, {"inputs": ["TOKEN"] * 5, "prompt": "x"}, 400, 1004),
        (PICTURE, {"input": "TOKEN", "template": "hologram"}, 400, 1004),
        ("/models/texture", {"model": "v3.5-20260815"}, 400, 1004),
        ("/models/texture", {"input": "DRAFT", "model": "v9"}, 400, 1004),
        ("/models/texture", {"input": "DRAFT", "texture_prompt": {"text": "a", "image": "TOKEN"}}, 400, 1004),
        ("/models/texture", {"input": "DRAFT", "texture_prompt": "oak"}, 400, 1004),
        ("/models/texture", {"input": "TOKEN", "texture_prompt": {"text": "oak"}}, 400, 1004),
        ("/models/convert", {"input": "DRAFT", "format": "FBX"}, 400, 1004),
        ("/models/convert", {"input": "DRAFT", "format": "STL", "quad": True}, 400, 1004),
        ("/models/import", {"input": "TOKEN"}, 400, 1004),
        ("/models/refine", {"draft_model_task_id": "DRAFT"}, 400, 2015),
        ("/models/stylize", {}, 404, 4001),
        ("/files/upload-credentials", {}, 403, 1005),
    ],
)
def test_refusals(
    tripo: Tripo, back: Back, token: str, draft: dict[str, Any], path: str, body: dict[str, Any], http: int, code: int
) -> None:
    before = len(back.ledger())
    text = json.dumps(body).replace("TOKEN", token).replace("DRAFT", draft["task_id"])
    answer = tripo.http.post(path, content=text, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (http, code), answer.text
    assert len(back.ledger()) == before


def test_foreign_files_and_tasks_are_not_there(served: str, token: str, draft: dict[str, Any]) -> None:
    with tripo_at(served, f"{TRIPO_KEY}-other") as other:
        assert other.post(IMAGE, BARE | {"input": token}).json()["code"] == 1004
        assert other.post("/models/texture", {"input": draft["task_id"]}).json()["code"] == 2001
        assert other.http.get(f"/tasks/{draft['task_id']}").status_code == 404
        assert other.http.get("/account/usage").json()["data"]["items"] == []
        assert other.money() == (10_000, 0)


def test_bodies_that_are_no_json_object(tripo: Tripo) -> None:
    json_type = {"Content-Type": "application/json"}
    assert tripo.http.post(TEXT, content=b"{", headers=json_type).json()["code"] == 1003
    assert tripo.http.post(TEXT, content=b"[]", headers=json_type).json()["code"] == 1003
    answer = tripo.http.post(TEXT, content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (415, 1003)
    answer = tripo.http.get(TEXT)
    assert (answer.status_code, answer.json()["code"]) == (405, 1003)


@pytest.mark.parametrize("key", ["", "tsk_wrong", "tsk_sandboxed", "sk-sandbox"])
def test_wrong_keys(served: str, key: str) -> None:
    with tripo_at(served, key or "x") as client:
        for answer in (client.post(TEXT, GOOD), client.http.get("/account/balance"), client.http.get("/nowhere")):
            assert (answer.status_code, answer.json()["code"]) == (401, 2)


# --- money, pools, rates --------------------------------------------------------------------------------------------


@pytest.fixture
def own(served: str, request: pytest.FixtureRequest) -> Generator[tuple[Tripo, str]]:
    """A client with an account of its own, and the key."""
    key = f"{TRIPO_KEY}-{request.node.name}"
    with tripo_at(served, key) as client:
        yield client, key


def test_credits_are_frozen_then_taken_or_given_back(own: tuple[Tripo, str], back: Back) -> None:
    client, key = own
    assert back.http.post("/balance", json={"key": key, "balance": "100.50"}).status_code == 204
    back.turn(key, credit_factor="0.85")
    back.arm("tripo.task", "stays_queued", seconds=0.3, key=key)
    task_id = client.created(TEXT, GOOD)
    assert client.money() == (92.0, 8.5)
    assert client.task(task_id)["status"] == "queued"
    assert client.ended(task_id)["credits_consumed"] == 8.5
    assert client.money() == (92.0, 0)
    back.arm("tripo.task", "failed", key=key)
    assert client.ended(client.created(TEXT, GOOD))["credits_consumed"] == 0
    assert client.money() == (92.0, 0)
    assert [row["state"] for row in back.ledger()[-2:]] == ["charged", "released"]
    back.http.post("/balance", json={"key": key, "balance": "8.49"})
    answer = client.post(TEXT, GOOD)
    assert (answer.status_code, answer.json()["code"]) == (403, 2010)


def test_a_full_pool_is_told_and_frees_itself(own: tuple[Tripo, str], back: Back) -> None:
    client, key = own
    back.turn(key, pools={"h": 1, "p": 1})
    back.arm("tripo.task", "stays_queued", seconds=600, key=key)
    task_id = client.created(TEXT, GOOD)
    answer = client.post(TEXT, GOOD)
    assert (answer.status_code, answer.json()["code"]) == (429, 2000)
    assert int(answer.headers["retry-after"]) > 0
    back.arm("tripo.task", "failed", key=key)
    client.created(TEXT, P1)  # another group
    ended = back.http.post(f"/tasks/{task_id}/end", json={"status": "cancelled"})
    assert ended.json() == {"ended": True}
    assert client.task(task_id)["status"] == "cancelled"
    back.arm("tripo.task", "failed", key=key)
    client.created(TEXT, GOOD)


def test_the_creation_rate(own: tuple[Tripo, str], back: Back) -> None:
    client, key = own
    back.turn(key, creations_per_minute=1, uploads_per_minute=1)
    back.arm("tripo.task", "failed", key=key)
    client.created(TEXT, GOOD)
    answer = client.post(TEXT, GOOD)
    assert (answer.status_code, answer.json()["code"]) == (429, 1007)
    assert 0 < int(answer.headers["x-ratelimit-reset"]) <= 60
    assert answer.headers["x-ratelimit-remaining"] == "0"
    client.upload(picture())
    assert client.http.post("/files", files={"file": ("a.png", picture(), "image/png")}).json()["code"] == 1007
