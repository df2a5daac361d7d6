"""The back door: who may use it, and what it refuses."""

from __future__ import annotations

import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from app.errors import ConfigurationError
from app.sandbox.providers.faults import KINDS

from tests.loopback import loopback
from tests.unit.sandbox_providers.served import (
    ADMIN_KEY,
    BARE,
    OPENAI_KEY,
    PATIENCE,
    TRIPO_KEY,
    Back,
    Tripo,
    application,
    sandbox_settings,
    serving,
    tripo_at,
)


@pytest.mark.parametrize("key", ["", "wrong"])
def test_the_admin_key(served: str, key: str) -> None:
    for path in ("ledger", "knobs", "faults"):
        assert loopback.get(f"{served}/admin/{path}", headers={"X-Admin-Key": key}).status_code == 403


def test_unknown_knobs_and_faults_are_refused_and_change_nothing(back: Back) -> None:
    before = back.http.get("/knobs").json()
    for changes in ({"work_second": 1}, {"work_seconds": -1}, {"pools": {"x": 1}}, {"pools": {"h": -1}}):
        assert back.http.post("/knobs", json=changes).status_code == 422
    assert back.http.get("/knobs").json() == before
    for fault in (
        {"where": "openai", "kind": "explode"},
        {"where": "nowhere", "kind": "reset_after"},
        {"where": "openai", "kind": "quota", "count": 0},
        {"where": "openai", "kind": "quota", "colour": "red"},
    ):
        assert back.http.post("/faults", json=fault).status_code == 422
    faults = back.http.get("/faults").json()
    assert faults["armed"] == []
    assert set(faults["kinds"]) == set(KINDS)


def test_faults_count_down_and_are_counted(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.account", "status", count=2)
    assert [tripo.http.get("/account/balance").status_code for _ in range(3)] == [500, 500, 200]
    back.arm("tripo.account", "status", count=None, probability=0.5)
    statuses = [tripo.http.get("/account/balance").status_code for _ in range(40)]
    assert set(statuses) == {200, 500}
    hits = back.http.get("/faults").json()["hits"]
    assert hits == {"tripo.account:status": 2 + statuses.count(500)}


def test_faults_of_an_endpoint_and_of_a_key(tripo: Tripo, back: Back, served: str) -> None:
    key = f"{TRIPO_KEY}-mine"
    back.arm("tripo", "bad_key", count=None, key=key)
    assert key not in back.http.get("/faults").text
    with tripo_at(served, key) as mine:
        assert mine.http.get("/account/balance").status_code == 401
    assert tripo.http.get("/account/balance").status_code == 200
    back.http.delete("/faults")
    back.arm("tripo", "html", endpoint="/account/usage")
    assert tripo.http.get("/account/balance").status_code == 200
    assert tripo.http.get("/account/usage").headers["content-type"].startswith("text/html")


def test_faults_of_a_prompt(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.submit", "moderation", words="a stone")
    path = "/generation/text-to-model"
    answers = [tripo.http.post(path, json={"prompt": words, **BARE}) for words in ("a boat", "a stone ship", "a stone")]
    assert [answer.json()["code"] for answer in answers] == [0, 2008, 0]
    back.arm("openai", "moderation", words="a stone")
    assert back.http.get("/faults").json()["armed"][0]["words"] == "a stone"


def test_the_ledger_goes_on_from_a_number(tripo: Tripo, back: Back) -> None:
    back.arm("tripo.task", "failed", count=2)
    first, second = (tripo.created("/generation/text-to-model", {"prompt": "a boat", **BARE}) for _ in range(2))
    number = next(row["id"] for row in back.ledger() if row["reference"] == first)
    rows = back.http.get("/ledger", params={"after": number}).json()
    assert [row["reference"] for row in rows] == [second]


def test_every_reply_says_sandbox(served: str, back: Back, tripo: Tripo) -> None:
    answers = [
        back.http.get("/ledger"),
        tripo.http.get("/account/balance"),
        tripo.http.get("/nowhere"),
        loopback.get(f"{served}/openai/v1/models"),
        loopback.get(f"{served}/tripo/dl/x.glb"),
        loopback.get(f"{served}/nowhere"),
    ]
    assert {answer.headers["x-makeit3d-sandbox"] for answer in answers} == {"sandbox"}


def test_listeners_for_connections_that_go_wrong(back: Back) -> None:
    ports = {
        manner: back.http.post("/listeners", json={"manner": manner}).json()["port"]
        for manner in ("stall", "reset", "garbage")
    }
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"http://127.0.0.1:{ports['stall']}", trust_env=False, timeout=0.2)
    for scheme, manner in (("http", "reset"), ("http", "garbage"), ("https", "garbage")):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{scheme}://127.0.0.1:{ports[manner]}", trust_env=False)
    assert back.http.delete("/listeners").status_code == 204
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports["stall"]))


def test_knobs_at_start(tmp_path: Path) -> None:
    application(sandbox_settings(tmp_path, 1, knobs='{"credit_factor": "0.5"}'))
    with pytest.raises(ConfigurationError, match="SANDBOX_KNOBS: work_seconds"):
        application(sandbox_settings(tmp_path, 1, knobs='{"work_seconds": "soon"}'))


@pytest.fixture
def quiet(tmp_path: Path) -> Generator[str]:
    """A sandbox of its own: what other tests began may still be under way in the shared one."""
    with serving(tmp_path) as url:
        yield url


def test_calls_under_way_at_a_time_are_counted_by_pool(quiet: str) -> None:
    with (
        tripo_at(quiet) as tripo,
        httpx.Client(
            base_url=f"{quiet}/admin", headers={"X-Admin-Key": ADMIN_KEY}, trust_env=False, timeout=60
        ) as http,
    ):
        counted(tripo, Back(http), quiet)


def counted(tripo: Tripo, back: Back, served: str) -> None:
    back.turn(work_seconds=1, drawing="stock")
    made = [tripo.created("/generation/text-to-model", {"prompt": "a stone", **BARE}) for _ in range(3)]
    order = {"model": "gpt-image-2", "prompt": "a stone", "n": 2, "size": "1024x1024"}
    headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
    url = f"{served}/openai/v1/images/generations"
    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(
                lambda _: loopback.post(url, json=order, headers=headers, timeout=PATIENCE).status_code,
                "ab",
            )
        )
    assert answers == [200, 200]
    for task in made:
        tripo.ended(task)
    tripo.made("/generation/text-to-model", {"prompt": "a stone", **BARE})
    assert back.http.get("/concurrency").json() == {"h": 3, "openai": 2}
