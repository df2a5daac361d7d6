"""OpenAI's faults: what the caller sees, and what the ledger knows better."""

from __future__ import annotations

import base64
from collections.abc import Generator

import httpx
import pytest

from tests.unit.sandbox_providers.served import OPENAI_KEY, Back, picture

ORDER: dict[str, str] = {"model": "gpt-image-2", "prompt": "clay", "size": "816x816", "quality": "low"}
FILES = {"image": ("a.png", picture(), "image/png")}
PATH = "/images/edits"


@pytest.fixture
def http(served: str) -> Generator[httpx.Client]:
    headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
    with httpx.Client(base_url=f"{served}/openai/v1", headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("moderation", 400, "moderation_blocked"),
        ("quota", 429, "credit_balance_exhausted"),
        ("rate_limit", 429, "rate_limit_exceeded"),
        ("slow_down", 429, "slow_down"),
        ("overloaded", 503, "server_is_overloaded"),
        ("server_error", 500, None),
        ("bad_key", 401, "invalid_api_key"),
        ("not_verified", 403, None),
        ("model_gone", 404, "model_not_found"),
    ],
)
def test_refusals_by_name_cost_nothing(http: httpx.Client, back: Back, kind: str, status: int, code: str) -> None:
    before = len(back.ledger())
    back.arm("openai", kind)
    answer = http.post(PATH, data=ORDER, files=FILES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(back.ledger()) == before


def test_statuses_and_pages_before_acceptance(http: httpx.Client, back: Back) -> None:
    before = len(back.ledger())
    back.arm("openai", "html_before")
    answer = http.post(PATH, data=ORDER, files=FILES)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (502, "text/html")
    back.arm("openai", "status_before", status=429, body={"error": {"code": "x"}}, headers={"retry-after": "7"})
    answer = http.post(PATH, data=ORDER, files=FILES)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (429, {"error": {"code": "x"}}, "7")
    for kind, seconds in (("reset_before", 0), ("stall_before", 0.05)):
        back.arm("openai", kind, seconds=seconds)
        with pytest.raises(httpx.TransportError):
            http.post(PATH, data=ORDER, files=FILES)
    assert len(back.ledger()) == before


@pytest.mark.parametrize("kind", ["reset_after", "stall_after"])
def test_connections_lost_after_acceptance_are_paid(http: httpx.Client, back: Back, kind: str) -> None:
    before = len(back.ledger())
    back.arm("openai", kind, seconds=0.05)
    with pytest.raises(httpx.TransportError):
        http.post(PATH, data=ORDER, files=FILES)
    (row,) = back.ledger()[before:]
    assert (row["reply"], row["delivered"]) == (kind, 0)
    assert int(row["charged"]) > 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [("empty_after", b""), ("truncated_after", None), ("no_id_after", b'{"created":1795200000}')],
)
def test_useless_replies_after_acceptance_are_paid(
    http: httpx.Client, back: Back, kind: str, body: bytes | None
) -> None:
    before = len(back.ledger())
    back.arm("openai", kind)
    answer = http.post(PATH, data=ORDER, files=FILES)
    assert answer.status_code == 200
    if body is None:
        with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
            answer.json()
    else:
        assert answer.content == body
    assert len(back.ledger()) == before + 1


def test_a_body_cut_short(http: httpx.Client, back: Back) -> None:
    back.arm("openai", "cut_after")
    with pytest.raises(httpx.TransportError):
        http.post(PATH, data=ORDER, files=FILES)
    assert back.ledger()[-1]["reply"] == "cut_after"


def test_a_late_reply_is_a_true_one(http: httpx.Client, back: Back) -> None:
    back.arm("openai", "late_after", seconds=0.1)
    assert http.post(PATH, data=ORDER, files=FILES).json()["data"]
    assert back.ledger()[-1]["reply"] == "late_after"


def test_moderation_of_the_output_takes_the_work_and_gives_the_money_back(http: httpx.Client, back: Back) -> None:
    back.arm("openai", "moderation_output")
    answer = http.post(PATH, data=ORDER, files=FILES)
    assert answer.json()["error"]["moderation_details"]["moderation_stage"] == "output"
    row = back.ledger()[-1]
    assert (row["accepted"], row["charged"], row["state"]) == (True, "0", "released")


def first(http: httpx.Client) -> str:
    encoded: str = http.post(PATH, data=ORDER, files=FILES).json()["data"][0]["b64_json"]
    return encoded


def test_spoilt_pictures(http: httpx.Client, back: Back) -> None:
    back.arm("openai", "fewer_images")
    assert len(http.post(PATH, data=ORDER, files=FILES).json()["data"]) == 0
    back.arm("openai", "broken_image")
    assert base64.b64decode(http.post(PATH, data=ORDER, files=FILES).json()["data"][0]["b64_json"]).startswith(
        b"this is no"
    )
    back.arm("openai", "broken_base64")
    assert first(http).startswith("%%")
    back.arm("openai", "jpeg_for_png")
    assert base64.b64decode(first(http))[:2] == b"\xff\xd8"
    back.arm("openai", "no_usage")
    assert "usage" not in http.post(PATH, data=ORDER, files=FILES).json()


def events(text: str) -> list[str]:
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


def test_streams_that_fail(http: httpx.Client, back: Back) -> None:
    order = ORDER | {"stream": "true", "partial_images": "1"}
    partial, completed = "image_edit.partial_image", "image_edit.completed"
    back.arm("openai", "final_first")
    assert events(http.post(PATH, data=order, files=FILES).text) == [completed, partial]
    back.arm("openai", "stream_error")
    assert events(http.post(PATH, data=order, files=FILES).text) == [partial, "error"]
    back.arm("openai", "moderation_output")
    assert '"moderation_stage":"output"' in http.post(PATH, data=order, files=FILES).text
    back.arm("openai", "stream_cut")
    with pytest.raises(httpx.TransportError), http.stream("POST", PATH, data=order, files=FILES) as answer:
        assert events("".join(answer.iter_text())) == [partial]
    assert back.ledger()[-1]["reply"] == "stream_cut"
