"""Results are fetched from the provider's hosts only, without the key, and checked for what they are."""

from __future__ import annotations

import hashlib
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import respx
from app.ai_clients.errors import Advice, Refused
from app.ai_clients.tripo.client import TripoModels
from app.errors import ErrorCode

from tests.unit.ai_clients.support import assert_no_secrets, make_settings, picture_bytes

HOST = "https://tripo-data.rg1.data.tripo3d.com"
LINK = f"{HOST}/a/model.glb?Signature=s"
GLB = struct.pack("<4sII", b"glTF", 2, 112) + bytes(100)
LIMIT = 1024 * 1024


async def refusal(tripo: TripoModels, link: str, directory: Path, max_bytes: int = LIMIT) -> Refused:
    with pytest.raises(Refused) as caught:
        await tripo.download(link, directory / "model", max_bytes=max_bytes)
    assert list(directory.iterdir()) == []
    assert_no_secrets(caught.value)
    return caught.value


@respx.mock
async def test_a_model_arrives_without_our_key(tripo: TripoModels, tmp_path: Path) -> None:
    route = respx.get(LINK).respond(200, content=GLB, headers={"content-type": "text/html"})
    file = await tripo.download(LINK, tmp_path / "model", max_bytes=LIMIT)
    assert (file.content_type, file.size) == ("model/gltf-binary", 112)
    assert file.sha256 == hashlib.sha256(GLB).hexdigest()
    assert file.path.read_bytes() == GLB
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    headers = route.calls.last.request.headers
    assert "authorization" not in headers
    assert "x-tripo-trace-id" not in headers
    assert headers["accept-encoding"] == "identity"


@respx.mock
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_pictures_arrive_too(tripo: TripoModels, tmp_path: Path, kind: str) -> None:
    respx.get(LINK).respond(200, content=picture_bytes(kind))
    file = await tripo.download(LINK, tmp_path / "preview", max_bytes=LIMIT)
    assert file.content_type == f"image/{kind.lower()}"


@respx.mock
@pytest.mark.parametrize(
    "link",
    [
        "http://tripo-data.rg1.data.tripo3d.com/x",
        "https://tripo3d.com.evil.example/x",
        "https://eviltripo3d.com/x",
        "https://evil.example/?.tripo3d.com",
        "https://evil.example#.tripo3d.com",
        "https://user@cdn.tripo3d.ai/x",
        "https://cdn.tripo3d.ai:8443/x",
        "https://cdn.tripo3d.ai./x",
        "https://127.0.0.1/x",
        "http://127.0.0.1:8001/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "ftp://cdn.tripo3d.ai/x",
        "file:///etc/passwd",
        "data:model/gltf-binary;base64,Z2xURg==",
        "//cdn.tripo3d.ai/x",
        "https:///x",
        "",
        "not a link",
        "https://cdn.tripo3d.ai/" + "x" * 9000,
        "https://cdn.tripo3d.ai\\@evil.example/",
        "https://cdn.tripo3d.ai\n.evil.example/",
    ],
)
async def test_no_other_address_is_fetched(tripo: TripoModels, tmp_path: Path, link: str) -> None:
    anywhere = respx.route().respond(200, content=GLB)
    refused = await refusal(tripo, link, tmp_path)
    assert (refused.code, refused.advice) == (ErrorCode.PROVIDER_RESULT_INVALID, Advice.FINAL)
    assert anywhere.call_count == 0


@respx.mock
@pytest.mark.parametrize(
    "location", ["https://evil.example/x", "http://cdn.tripo3d.ai/x", "http://127.0.0.1/", "//[::1]/"]
)
async def test_a_redirect_elsewhere_is_not_followed(tripo: TripoModels, tmp_path: Path, location: str) -> None:
    respx.get(LINK).respond(302, headers={"location": location})
    elsewhere = respx.route().respond(200, content=GLB)
    refused = await refusal(tripo, LINK, tmp_path)
    assert refused.code is ErrorCode.PROVIDER_RESULT_INVALID
    assert elsewhere.call_count == 0


@respx.mock
async def test_a_redirect_within_is_followed_a_few_times(tripo: TripoModels, tmp_path: Path) -> None:
    respx.get(LINK).respond(302, headers={"location": "/b"})
    respx.get(f"{HOST}/b").respond(301, headers={"location": "https://cdn.tripo3d.ai/c"})
    respx.get("https://cdn.tripo3d.ai/c").respond(200, content=GLB)
    assert (await tripo.download(LINK, tmp_path / "model", max_bytes=LIMIT)).size == len(GLB)
    (tmp_path / "model").unlink()
    loop = respx.get("https://cdn.tripo3d.ai/loop").respond(302, headers={"location": "/loop"})
    assert (await refusal(tripo, "https://cdn.tripo3d.ai/loop", tmp_path)).code is ErrorCode.PROVIDER_RESULT_INVALID
    assert loop.call_count == 4


@respx.mock
@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 502, 503, 204, 206])
async def test_a_dead_link_is_asked_for_anew(tripo: TripoModels, tmp_path: Path, status: int) -> None:
    route = respx.get(LINK).respond(status)
    refused = await refusal(tripo, LINK, tmp_path)
    assert (refused.code, refused.advice) == (ErrorCode.PROVIDER_UNAVAILABLE, Advice.RETRY)
    assert refused.http_status == status
    assert route.call_count == 1


async def _cut() -> AsyncIterator[bytes]:
    yield GLB[:50]
    raise httpx.ReadError("reset")


@respx.mock
@pytest.mark.parametrize(
    ("response", "code", "advice"),
    [
        (httpx.Response(200, content=_cut()), ErrorCode.PROVIDER_UNAVAILABLE, Advice.RETRY),
        (httpx.Response(200, content=b""), ErrorCode.PROVIDER_RESULT_INVALID, Advice.RETRY),
        (httpx.Response(200, content=GLB[:80]), ErrorCode.PROVIDER_RESULT_INVALID, Advice.RETRY),
        (httpx.Response(200, content=GLB + b"more"), ErrorCode.PROVIDER_RESULT_INVALID, Advice.RETRY),
        (httpx.Response(200, content=b"glTF\x01\0\0\0\x0c\0\0\0"), ErrorCode.PROVIDER_RESULT_INVALID, Advice.RETRY),
        (httpx.Response(200, html="<html>busy</html>"), ErrorCode.PROVIDER_RESULT_INVALID, Advice.RETRY),
        (httpx.Response(200, content=b"Kaydara FBX Binary  \0"), ErrorCode.PROVIDER_RESULT_INVALID, Advice.FINAL),
        (httpx.Response(200, content=b"PK\x03\x04..."), ErrorCode.PROVIDER_RESULT_INVALID, Advice.FINAL),
        (
            httpx.Response(200, stream=httpx.ByteStream(GLB), headers={"content-length": "500"}),
            ErrorCode.PROVIDER_UNAVAILABLE,
            Advice.RETRY,
        ),
    ],
)
async def test_what_is_no_result_leaves_no_file(
    tripo: TripoModels, tmp_path: Path, response: httpx.Response, code: ErrorCode, advice: Advice
) -> None:
    respx.get(LINK).mock(return_value=response)
    refused = await refusal(tripo, LINK, tmp_path)
    assert (refused.code, refused.advice) == (code, advice)


@respx.mock
async def test_the_cap_holds_declared_or_not(tripo: TripoModels, tmp_path: Path) -> None:
    served = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal served
        while True:
            served += 65536
            yield bytes(65536)

    respx.get(LINK).mock(return_value=httpx.Response(200, content=endless()))
    assert (await refusal(tripo, LINK, tmp_path)).code is ErrorCode.PROVIDER_RESULT_TOO_LARGE
    assert served <= LIMIT + 2 * 65536
    respx.get(LINK).mock(
        return_value=httpx.Response(200, content=endless(), headers={"content-length": str(LIMIT + 1)})
    )
    served = 0
    assert (await refusal(tripo, LINK, tmp_path)).code is ErrorCode.PROVIDER_RESULT_TOO_LARGE
    assert served == 0


@respx.mock
async def test_a_stand_in_on_this_machine_serves_plain_links(context: ssl.SSLContext, tmp_path: Path) -> None:
    settings = make_settings(tripo_base_url="http://127.0.0.1:8001/tripo/v3", tripo_download_hosts="127.0.0.1")
    tripo = TripoModels(settings, context)
    respx.get("http://127.0.0.1:8001/tripo/dl/1").respond(200, content=GLB)
    assert (await tripo.download("http://127.0.0.1:8001/tripo/dl/1", tmp_path / "model", max_bytes=LIMIT)).size == 112
    (tmp_path / "model").unlink()
    await refusal(tripo, "http://10.0.0.1/x", tmp_path)
    await refusal(tripo, "http://cdn.tripo3d.ai/x", tmp_path)
    await tripo.aclose()


@respx.mock
async def test_a_listed_loopback_host_is_nothing_to_the_real_provider(context: ssl.SSLContext, tmp_path: Path) -> None:
    tripo = TripoModels(make_settings(tripo_download_hosts="127.0.0.1,.tripo3d.ai"), context)
    anywhere = respx.route().respond(200, content=GLB)
    await refusal(tripo, "http://127.0.0.1/x", tmp_path)
    assert anywhere.call_count == 0
    await tripo.aclose()
