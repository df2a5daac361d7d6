"""OpenAI's refusals. None of them costs anything."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import httpx
import pytest

from tests.unit.sandbox_providers.served import OPENAI_KEY, Back, mask, picture

GOOD: dict[str, Any] = {"model": "gpt-image-2", "prompt": "a fox"}
Files = list[tuple[str, tuple[str, bytes, str]]]
PNG = ("a.png", picture(), "image/png")


@pytest.fixture
def http(served: str) -> Generator[httpx.Client]:
    headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
    with httpx.Client(base_url=f"{served}/openai/v1", headers=headers, trust_env=False, timeout=60) as client:
        yield client


def refusal(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize(
    ("changes", "status", "code", "param"),
    [
        ({"response_format": "b64_json"}, 400, "unknown_parameter", "response_format"),
        ({"style": "vivid"}, 400, "unknown_parameter", "style"),
        ({"input_fidelity": "high"}, 400, "unknown_parameter", "input_fidelity"),
        ({"model": "gpt-image-1"}, 404, "model_not_found", "model"),
        ({"model": "dall-e-3"}, 404, "model_not_found", "model"),
        ({"model": 3}, 400, "invalid_type", "model"),
        ({"model": None}, 400, "missing_required_parameter", "model"),
        ({"prompt": None}, 400, "missing_required_parameter", "prompt"),
        ({"prompt": ""}, 400, "invalid_value", "prompt"),
        ({"prompt": "x" * 32_001}, 400, "invalid_value", "prompt"),
        ({"prompt": ["x"]}, 400, "invalid_type", "prompt"),
        ({"n": 0}, 400, "invalid_value", "n"),
        ({"n": 11}, 400, "invalid_value", "n"),
        ({"n": "2"}, 400, "invalid_type", "n"),
        ({"n": True}, 400, "invalid_type", "n"),
        ({"size": "512x512"}, 400, "invalid_value", "size"),
        ({"size": "1000x1000"}, 400, "invalid_value", "size"),
        ({"size": "3840x1024"}, 400, "invalid_value", "size"),
        ({"size": "3856x2048"}, 400, "invalid_value", "size"),
        ({"size": "large"}, 400, "invalid_value", "size"),
        ({"quality": "hd"}, 400, "invalid_value", "quality"),
        ({"quality": "xhigh"}, 400, "invalid_value", "quality"),
        ({"background": "green"}, 400, "invalid_value", "background"),
        ({"background": "transparent", "output_format": "jpeg"}, 400, "invalid_value", "background"),
        ({"output_format": "gif"}, 400, "invalid_value", "output_format"),
        ({"output_compression": 50}, 400, "invalid_value", "output_compression"),
        ({"output_compression": 101, "output_format": "webp"}, 400, "invalid_value", "output_compression"),
        ({"moderation": "none"}, 400, "invalid_value", "moderation"),
        ({"complexity": "huge"}, 400, "invalid_value", "complexity"),
        ({"partial_images": 4, "stream": True}, 400, "invalid_value", "partial_images"),
        ({"stream": "true"}, 400, "invalid_type", "stream"),
        ({"safety_identifier": 5}, 400, "invalid_type", "safety_identifier"),
    ],
)
def test_generations(
    http: httpx.Client, back: Back, changes: dict[str, Any], status: int, code: str, param: str
) -> None:
    before = len(back.ledger())
    assert refusal(http.post("/images/generations", json=GOOD | changes)) == (status, code, param)
    assert len(back.ledger()) == before
    newest = back.ledger(refused=True)[-1]
    assert (newest["accepted"], newest["refusal"], newest["charged"]) == (False, code, "0")


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_bodies_that_are_no_object(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/images/generations", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_other_content_type(http: httpx.Client) -> None:
    assert refusal(http.post("/images/edits", json=GOOD))[:2] == (400, "unsupported_content_type")
    assert refusal(http.post("/images/generations", data=GOOD))[:2] == (400, "unsupported_content_type")


@pytest.mark.parametrize(
    ("fields", "files", "status", "code", "param"),
    [
        ({}, [], 400, "missing_required_parameter", "image"),
        ({}, [("image[]", PNG)] * 17, 400, "invalid_value", "image"),
        ({}, [("image", ("a.png", picture(), ""))], 400, "unsupported_file_mimetype", "image[0]"),
        (
            {},
            [("image[]", PNG), ("image[]", ("a.gif", b"x", "image/gif"))],
            400,
            "unsupported_file_mimetype",
            "image[1]",
        ),
        ({}, [("image", ("a.png", b"no picture", "image/png"))], 400, "invalid_image_file", "image[0]"),
        ({}, [("image", PNG), ("mask", ("m.png", mask(64, 64), "image/png"))], 400, "invalid_image_file", "mask"),
        ({}, [("image", PNG), ("mask", ("m.png", mask(alpha=False), "image/png"))], 400, "invalid_image_file", "mask"),
        (
            {},
            [("image", PNG), ("mask", ("m.jpg", picture(format_name="JPEG"), "image/jpeg"))],
            400,
            "invalid_image_file",
            "mask",
        ),
        ({}, [("image", PNG), ("markup", ("m.png", mask(), "image/png"))], 400, "unknown_parameter", "markup"),
        (
            {"model": "gpt-image-2.5-flare"},
            [("image", PNG), ("markup", ("m.png", mask(), "image/png")), ("mask", ("m.png", mask(), "image/png"))],
            400,
            "invalid_value",
            "markup",
        ),
        ({}, [("image", PNG), ("photo", PNG)], 400, "unknown_parameter", "photo"),
        ({"moderation": "low"}, [("image", PNG)], 400, "unknown_parameter", "moderation"),
        ({"input_fidelity": "high"}, [("image", PNG)], 400, "unknown_parameter", "input_fidelity"),
        ({"n": "two"}, [("image", PNG)], 400, "invalid_type", "n"),
        ({"n": "11"}, [("image", PNG)], 400, "invalid_value", "n"),
    ],
)
def test_edits(
    http: httpx.Client, back: Back, fields: dict[str, str], files: Files, status: int, code: str, param: str
) -> None:
    before = len(back.ledger())
    # a part that is no file makes httpx send multipart even without files
    parts = [*((name, (None, value)) for name, value in (GOOD | fields).items()), *files]
    assert refusal(http.post("/images/edits", files=parts)) == (status, code, param)
    assert len(back.ledger()) == before


@pytest.mark.parametrize("authorization", ["", "Bearer sk-wrong", "Basic sk-sandbox", "Bearer tsk_sandbox"])
def test_wrong_keys(http: httpx.Client, authorization: str) -> None:
    answer = http.post("/images/generations", json=GOOD, headers={"Authorization": authorization})
    assert refusal(answer)[:2] == (401, "invalid_api_key")
    assert "sandbox" not in answer.json()["error"]["message"]


def test_unknown_routes(http: httpx.Client) -> None:
    assert http.post("/chat/completions", json={}).status_code == 404
    assert http.get("/images/generations").json()["error"]["type"] == "invalid_request_error"


def test_the_request_rate(http: httpx.Client, back: Back) -> None:
    key = f"{OPENAI_KEY}-hasty"
    back.turn(key, openai_per_minute=1)
    back.arm("openai", "empty_after", key=key)
    headers = {"Authorization": f"Bearer {key}"}
    assert http.post("/images/generations", json=GOOD, headers=headers).status_code == 200
    answer = http.post("/images/generations", json=GOOD, headers=headers)
    assert refusal(answer)[:2] == (429, "rate_limit_exceeded")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
