"""What the OpenAI client sends, and where its reply goes."""

from __future__ import annotations

import email
import json
import ssl
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path

import httpx
import pytest
import respx
from app.ai_clients.base import Capability, ImageRequest, SynchronousProvider
from app.ai_clients.errors import OutcomeUnknown, Refused
from app.ai_clients.openai.client import OpenAIImages
from app.errors import ErrorCode

from tests.fake_providers import unwatched
from tests.unit.ai_clients.support import (
    OPENAI_BASE,
    OPENAI_KEY,
    assert_no_secrets,
    b64,
    file_input,
    make_settings,
    picture_bytes,
)

GENERATIONS = f"{OPENAI_BASE}/images/generations"
EDITS = f"{OPENAI_BASE}/images/edits"


def reply_body(n: int = 1) -> dict[str, object]:
    return {"created": 1, "data": [{"b64_json": b64(picture_bytes())} for _ in range(n)]}


def parts(request: httpx.Request) -> list[tuple[str, str | None, str, bytes]]:
    """(name, filename, content type, content) of a multipart body, in order."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message: Message = email.message_from_bytes(head + request.content)
    found: list[tuple[str, str | None, str, bytes]] = []
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((name, part.get_filename(), part.get_content_type(), content))
    return found


def test_it_is_a_synchronous_provider(openai: OpenAIImages) -> None:
    assert isinstance(openai, SynchronousProvider)
    assert Capability.TEXT_TO_IMAGE in openai.capabilities
    assert openai.pool(ImageRequest("x")) == "openai"
    assert openai.timeout_seconds == 600


@respx.mock
async def test_a_generation_sends_only_what_was_set(openai: OpenAIImages, tmp_path: Path) -> None:
    route = respx.post(GENERATIONS).respond(json=reply_body(), headers={"x-request-id": "req_1"})
    receipt = await openai.send(ImageRequest("a red fox"), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert route.call_count == 1
    request = route.calls.last.request
    assert json.loads(request.content) == {"model": "gpt-image-2", "prompt": "a red fox", "n": 1}
    assert receipt.provider_request_id == "req_1"
    assert json.loads(receipt.path.read_bytes()) == reply_body()
    assert [path.name for path in tmp_path.iterdir()] == ["reply"]


@respx.mock
async def test_a_generation_sends_all_that_was_set(openai: OpenAIImages, tmp_path: Path) -> None:
    route = respx.post(GENERATIONS).respond(json=reply_body(2))
    request = ImageRequest(
        "a red fox",
        n=2,
        model="gpt-image-2.5-flare",
        size="1024x1024",
        quality="medium",
        background="transparent",
        output_format="webp",
        safety_identifier="abc",
    )
    await openai.send(request, reply=tmp_path / "reply", before_first_byte=unwatched)
    assert json.loads(route.calls.last.request.content) == {
        "model": "gpt-image-2.5-flare",
        "prompt": "a red fox",
        "n": 2,
        "size": "1024x1024",
        "quality": "medium",
        "background": "transparent",
        "output_format": "webp",
        "safety_identifier": "abc",
    }


@respx.mock
async def test_headers(openai: OpenAIImages, tmp_path: Path) -> None:
    route = respx.post(GENERATIONS).respond(json=reply_body())
    await openai.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    headers = route.calls.last.request.headers
    assert headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert headers["connection"] == "close"
    assert headers["accept-encoding"] == "identity"
    assert headers["x-stainless-retry-count"] == "0"
    assert "openai-organization" not in headers
    assert "idempotency-key" not in headers


@respx.mock
async def test_one_input_is_image_and_several_are_a_list(openai: OpenAIImages, tmp_path: Path) -> None:
    route = respx.post(EDITS).respond(json=reply_body())
    one = file_input(tmp_path / "a.png")
    await openai.send(
        ImageRequest("paint it red", n=3, inputs=(one,)), reply=tmp_path / "reply", before_first_byte=unwatched
    )
    sent = parts(route.calls.last.request)
    assert ("image", "a.png", "image/png", picture_bytes()) in sent
    assert {name: content for name, filename, _, content in sent if filename is None} == {
        "model": b"gpt-image-2",
        "prompt": b"paint it red",
        "n": b"3",
    }
    two = file_input(tmp_path / "b.jpg", picture_bytes("JPEG"), "image/jpeg")
    mask = file_input(tmp_path / "mask.png")
    await openai.send(
        ImageRequest("x", inputs=(one, two), mask=mask), reply=tmp_path / "reply2", before_first_byte=unwatched
    )
    files = [part[:3] for part in parts(route.calls.last.request) if part[1] is not None]
    assert files == [
        ("image[]", "a.png", "image/png"),
        ("image[]", "b.jpg", "image/jpeg"),
        ("mask", "mask.png", "image/png"),
    ]


@respx.mock
@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest(""),
        ImageRequest("x" * 32_001),
        ImageRequest("x", n=0),
        ImageRequest("x", n=11),
        ImageRequest("x", background="transparent", output_format="jpeg"),
    ],
)
async def test_what_the_api_would_refuse_is_not_sent(
    openai: OpenAIImages, tmp_path: Path, request_: ImageRequest
) -> None:
    route = respx.post(GENERATIONS).respond(json=reply_body())
    with pytest.raises(Refused) as caught:
        await openai.send(request_, reply=tmp_path / "reply", before_first_byte=unwatched)
    assert caught.value.code is ErrorCode.PROVIDER_REQUEST_REFUSED
    assert route.call_count == 0


@respx.mock
async def test_an_input_over_the_limit_or_gone_is_not_sent(openai: OpenAIImages, tmp_path: Path) -> None:
    route = respx.post(EDITS).respond(json=reply_body())
    huge = file_input(tmp_path / "huge.png")
    with huge.path.open("r+b") as file:
        file.truncate(50 * 1024 * 1024)
    with pytest.raises(Refused) as caught:
        await openai.send(ImageRequest("x", inputs=(huge,)), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert caught.value.code is ErrorCode.PROVIDER_INPUT_REFUSED
    huge.path.unlink()
    with pytest.raises(Refused):
        await openai.send(ImageRequest("x", inputs=(huge,)), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert route.call_count == 0


async def _cut(first: bytes) -> AsyncIterator[bytes]:
    yield first
    raise httpx.ReadError("connection reset")


@respx.mock
@pytest.mark.parametrize("status", [200, 429])
async def test_a_reply_that_is_cut_leaves_no_file(openai: OpenAIImages, tmp_path: Path, status: int) -> None:
    route = respx.post(GENERATIONS).mock(return_value=httpx.Response(status, content=_cut(b'{"created":1,"data":[')))
    with pytest.raises(OutcomeUnknown) as caught:
        await openai.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert route.call_count == 1
    assert list(tmp_path.iterdir()) == []
    assert_no_secrets(caught.value)


@respx.mock
async def test_an_empty_reply_is_unknown(openai: OpenAIImages, tmp_path: Path) -> None:
    respx.post(GENERATIONS).respond(200, content=b"")
    with pytest.raises(OutcomeUnknown):
        await openai.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert list(tmp_path.iterdir()) == []


@respx.mock
async def test_a_reply_over_the_cap_is_unknown(tmp_path: Path, context: ssl.SSLContext) -> None:
    client = OpenAIImages(make_settings(max_image_bytes=1024), context)
    respx.post(GENERATIONS).respond(200, content=b" " * (2 * 1024 * 1024))
    with pytest.raises(OutcomeUnknown):
        await client.send(ImageRequest("x"), reply=tmp_path / "reply", before_first_byte=unwatched)
    assert list(tmp_path.iterdir()) == []
    await client.aclose()


@respx.mock
async def test_a_reply_that_can_not_be_kept_is_unknown(openai: OpenAIImages, tmp_path: Path) -> None:
    respx.post(GENERATIONS).respond(json=reply_body())
    with pytest.raises(OutcomeUnknown):
        await openai.send(
            ImageRequest("x"), reply=tmp_path / "no such directory" / "reply", before_first_byte=unwatched
        )


async def test_the_estimate_follows_the_price_table(openai: OpenAIImages, tmp_path: Path) -> None:
    one = openai.estimate(ImageRequest("abc", size="1024x1024", quality="medium"))
    assert one.price_version == "2026-11-21"
    assert one.micros == 1756 * 30 + 5
    ten = openai.estimate(ImageRequest("abc", n=10, size="1024x1024", quality="medium"))
    assert ten.micros == 10 * one.micros
    edit = openai.estimate(ImageRequest("abc", quality="medium", inputs=(file_input(tmp_path / "a.png"),)))
    assert edit.micros == one.micros + 3000 * 8
    before_the_inputs_are_fetched = ImageRequest("abc", quality="medium")
    assert openai.estimate(before_the_inputs_are_fetched, inputs=1) == edit
