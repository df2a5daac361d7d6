"""Uploads, presigned uploads, input URLs, and downloads behind links that expire."""

from __future__ import annotations

import struct
from typing import Any

import httpx
import pytest

from tests.loopback import loopback
from tests.unit.sandbox_providers.served import BARE, Back, Tripo, fetch, picture, tripo_at, wait_for

IMAGE = "/generation/image-to-model"
STL = (
    b"made by hand".ljust(80, b"\0")
    + struct.pack("<I", 4)
    + b"".join(
        struct.pack("<12fH", 0, 0, 0, *corners, 0)
        for corners in (
            (0, 0, 0, 0, 1, 0, 1, 0, 0),
            (0, 0, 0, 1, 0, 0, 0, 0, 1),
            (0, 0, 0, 0, 0, 1, 0, 1, 0),
            (1, 0, 0, 0, 1, 0, 0, 0, 1),
        )
    )
)
OBJ = b"v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture(scope="module")
def made(served: str) -> dict[str, Any]:
    with tripo_at(served) as client:
        return client.made(IMAGE, {"input": client.upload(picture()), **BARE})


@pytest.mark.parametrize(
    ("content", "content_type", "http", "code"),
    [
        (b"", "image/png", 400, 2003),
        (b"neither picture nor model", "image/png", 400, 2004),
        (b"GIF89a" + bytes(100), "image/gif", 400, 2004),
        (b"\x89PNG\r\n\x1a\n" + bytes(20 * 1024 * 1024), "image/png", 413, 2021),
        (b"\x89PNG\r\n\x1a\n" + bytes(20 * 1024 * 1024), "application/octet-stream", 413, 2021),
    ],
)
def test_refused_uploads(tripo: Tripo, content: bytes, content_type: str, http: int, code: int) -> None:
    answer = tripo.http.post("/files", files={"file": ("a", content, content_type)})
    assert (answer.status_code, answer.json()["code"]) == (http, code)


def test_an_upload_without_its_part(tripo: Tripo) -> None:
    assert tripo.http.post("/files", files={"image": ("a.png", picture(), "image/png")}).json()["code"] == 2019
    assert tripo.http.post("/files", content=b"x").json()["code"] == 1003


@pytest.mark.parametrize(("name", "content"), [("a.stl", STL), ("a.obj", OBJ)])
def test_meshes_of_other_formats_are_imported(tripo: Tripo, name: str, content: bytes) -> None:
    token = tripo.upload(content, name, "application/octet-stream")
    task = tripo.made("/models/import", {"input": token})
    assert fetch(task["output"]["model_url"])[:4] == b"glTF"


def test_a_broken_mesh_fails_as_a_task(tripo: Tripo) -> None:
    token = tripo.upload(b"glTF" + bytes(100), "a.glb", "model/gltf-binary")
    task = tripo.ended(tripo.created("/models/import", {"input": token}))
    assert (task["status"], task["error_code"], task["credits_consumed"]) == ("failed", 2018, 0)


def test_presigned_uploads(tripo: Tripo, made: dict[str, Any]) -> None:
    data = tripo.post("/files/presign", {"format": "glb"}).json()["data"]
    url, body = data["presigned_url"], {"input": data["file_token"]}
    assert tripo.post("/models/import", body).json()["code"] == 1004
    mesh = fetch(made["output"]["model_url"])
    with httpx.Client(trust_env=False, timeout=60) as storage:
        assert storage.put(f"{url}0", content=mesh).status_code == 403
        assert storage.put(url, content=mesh, headers={"Authorization": "Bearer tsk_sandbox"}).status_code == 400
        assert storage.put(url, content=b"").status_code == 400
        assert storage.put(url, content=mesh).status_code == 200
        assert storage.put(url, content=mesh).status_code == 403
    assert fetch(tripo.made("/models/import", body)["output"]["model_url"]) == mesh
    assert tripo.post("/files/presign", {"format": "exe"}).json()["code"] == 1004


def test_a_url_of_the_sandbox_is_an_input(tripo: Tripo, made: dict[str, Any], served: str) -> None:
    task = tripo.created("/models/import", {"input": made["output"]["model_url"]})
    assert tripo.ended(task)["status"] == "success"
    for url in (f"{served}/tripo/dl/nothing.png", made["output"]["model_url"]):
        answer = tripo.post(IMAGE, {"input": url, **BARE})
        assert answer.json()["code"] in (1004, 2004), answer.text


def test_tokens_expire(tripo: Tripo, back: Back) -> None:
    token = tripo.upload(picture())
    back.turn(token_seconds=0.001)
    assert tripo.post(IMAGE, {"input": token, **BARE}).json()["code"] == 1004


def test_a_lost_token(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.upload", "token_lost")
    assert tripo.post(IMAGE, {"input": tripo.upload(picture()), **BARE}).json()["code"] == 1004


def test_links_expire_and_a_new_look_brings_new_ones(tripo: Tripo, back: Back, made: dict[str, Any]) -> None:
    back.turn(link_seconds=0.2)
    old = tripo.task(made["task_id"])["output"]["model_url"]

    def expired() -> bool | None:
        return loopback.get(old).status_code == 403 or None

    wait_for(expired)
    back.turn(link_seconds=300)
    new = tripo.task(made["task_id"])["output"]["model_url"]
    assert new != old
    assert fetch(new)[:4] == b"glTF"
    assert loopback.get(new.replace("sig=", "sig=0")).status_code == 403
    assert httpx.head(new, trust_env=False).headers["content-type"] == "model/gltf-binary"


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        ("expired", 403, "application/xml"),
        ("missing", 404, "application/xml"),
        ("html", 200, "text/html"),
        ("status", 500, "text/plain"),
        ("wrong_type", 200, "text/plain"),
        ("redirect", 302, ""),
    ],
)
def test_spoilt_downloads(
    tripo: Tripo, back: Back, made: dict[str, Any], kind: str, status: int, content_type: str
) -> None:
    url = tripo.task(made["task_id"])["output"]["model_url"]
    back.arm("tripo.download", kind)
    answer = loopback.get(url)
    assert answer.status_code == status
    assert answer.headers.get("content-type", "").partition(";")[0] == content_type
    assert answer.headers["x-makeit3d-sandbox"] == "sandbox"
    assert fetch(url)[:4] == b"glTF"


@pytest.mark.parametrize("kind", ["cut", "stall", "wrong_length", "huge", "reset"])
def test_downloads_that_do_not_end_well(tripo: Tripo, back: Back, made: dict[str, Any], kind: str) -> None:
    url = tripo.task(made["task_id"])["output"]["model_url"]
    back.arm("tripo.download", kind, seconds=0.05)
    with pytest.raises(httpx.TransportError), httpx.stream("GET", url, trust_env=False, timeout=5) as answer:
        answer.read()


def test_a_slow_download_is_whole(tripo: Tripo, back: Back, made: dict[str, Any]) -> None:
    url = tripo.task(made["task_id"])["output"]["model_url"]
    back.arm("tripo.download", "slow")
    slow = fetch(url)
    back.turn(download_bytes_per_second=50_000)
    assert fetch(url) == slow
