"""What the real client makes of replies, also of those that are not Storage's."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
import respx
from app.config import Settings
from app.errors import ConfigurationError
from app.storage.base import (
    ContentTypeRefused,
    Limiter,
    ObjectNotFound,
    ObjectTooLarge,
    StorageDenied,
    StorageError,
    StorageUnavailable,
)
from app.storage.supabase_storage import SupabaseStorage

from tests.unit.storage.desk import BUCKET, Buckets, Desk, storage_settings

KEY = "sb_secret_0123456789"
PROJECT = "https://Abcdefgh.supabase.co:443"  # as a person may spell it
BASE = "https://abcdefgh.supabase.co/storage/v1"
SIGN, OBJECT = f"{BASE}/object/sign/b/a.png", f"{BASE}/object/b/a.png"


def said(status: str | int, error: str, *, http: int = 400) -> httpx.Response:
    """An error as Storage sends it."""
    return httpx.Response(http, json={"statusCode": status, "error": error, "message": "secret words", "code": "x"})


REPLIES = [
    (said("404", "not_found"), ObjectNotFound),
    (said("404", "not_found", http=404), ObjectNotFound),
    (said("404", "Bucket not found"), ObjectNotFound),
    (said("404", "Not Found", http=404), StorageError),  # no such route: the address is wrong
    (httpx.Response(404, html="<html>"), StorageError),
    (said("409", "Duplicate"), StorageError),
    (said("409", "ResourceNotEmpty"), StorageError),
    (said("413", "Payload too large"), ObjectTooLarge),
    (httpx.Response(413, html="<html>"), ObjectTooLarge),
    (said("400", "InvalidKey"), StorageError),
    (said("403", "Unauthorized"), StorageDenied),
    (said("415", "invalid_mime_type"), ContentTypeRefused),
    (httpx.Response(415, html="<html>"), ContentTypeRefused),
    (httpx.Response(401, json={"message": "Invalid API key"}), StorageDenied),
    (httpx.Response(302, headers={"location": "https://evil.example/"}), StorageError),
    (said("423", "ResourceLocked"), StorageUnavailable),
    (said("429", "too_many_connections", http=429), StorageUnavailable),
    (said("500", "Internal", http=500), StorageUnavailable),
    (said("544", "DatabaseTimeout", http=544), StorageUnavailable),
    (httpx.Response(502, html="<html>bad gateway</html>"), StorageUnavailable),
    (httpx.Response(520), StorageUnavailable),
    (httpx.Response(200, html="<html>captive portal</html>"), StorageUnavailable),
    (httpx.Response(200, json=[]), StorageUnavailable),
]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncGenerator[Desk]:
    storage = await SupabaseStorage.open(storage_settings(PROJECT, KEY))
    yield Desk(storage, Buckets("b", "b", "b", "b"), tmp_path)
    await storage.aclose()


@respx.mock
@pytest.mark.parametrize(("reply", "expected"), REPLIES)
async def test_uploads_are_tried_once(desk: Desk, reply: httpx.Response, expected: type[StorageError]) -> None:
    route = respx.post(OBJECT).mock(return_value=reply)
    if expected is ObjectTooLarge:
        respx.get(f"{BASE}/bucket/b").respond(json=BUCKET)  # asked whose limit it was
    with pytest.raises(StorageError) as caught:
        await desk.put("a.png")
    assert type(caught.value) is expected
    assert route.call_count == 1
    assert "secret" not in str(caught.value)


@respx.mock
@pytest.mark.parametrize(("reply", "expected"), REPLIES[::3])
async def test_reads_are_tried_three_times_where_it_helps(
    desk: Desk, reply: httpx.Response, expected: type[StorageError]
) -> None:
    route = respx.get(f"{BASE}/object/info/b/a.png").mock(return_value=reply)
    with pytest.raises(StorageError) as caught:
        await desk.storage.info("b", "a.png")
    assert type(caught.value) is expected
    assert route.call_count == (3 if expected is StorageUnavailable else 1)


@respx.mock
@pytest.mark.parametrize(
    ("bucket", "limiter", "max_bytes"),
    [
        (httpx.Response(200, json=BUCKET | {"file_size_limit": 5}), Limiter.BUCKET, 5),
        (httpx.Response(200, json=BUCKET | {"file_size_limit": 7}), Limiter.PROJECT, None),
        (httpx.Response(200, json=BUCKET), Limiter.PROJECT, None),
        (said("404", "Bucket not found"), None, None),
        (httpx.Response(502, html="<html>"), None, None),
    ],
)
async def test_a_bucket_is_asked_whose_limit_it_was(
    desk: Desk, bucket: httpx.Response, limiter: Limiter | None, max_bytes: int | None
) -> None:
    respx.post(OBJECT).mock(return_value=said("413", "Payload too large"))
    respx.get(f"{BASE}/bucket/b").mock(return_value=bucket)
    with pytest.raises(ObjectTooLarge) as caught:
        await desk.put("a.png", b"content")
    assert (caught.value.limiter, caught.value.max_bytes) == (limiter, max_bytes)


@respx.mock
@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout])
async def test_a_broken_line(desk: Desk, error: type[httpx.TransportError]) -> None:
    respx.post(OBJECT).mock(side_effect=error)
    if error is httpx.RemoteProtocolError:
        respx.get(f"{BASE}/bucket/b").mock(side_effect=error)  # asked for a refusal that nobody heard
    with pytest.raises(StorageUnavailable):
        await desk.put("a.png")


@respx.mock
@pytest.mark.parametrize(
    ("bucket", "expected"),
    [
        (httpx.Response(200, json=BUCKET), StorageUnavailable),
        (httpx.Response(200, json=BUCKET | {"file_size_limit": 5}), ObjectTooLarge),
        (httpx.Response(200, json=BUCKET | {"allowed_mime_types": ["model/*"]}), ContentTypeRefused),
        (httpx.Response(200, json=BUCKET | {"allowed_mime_types": ["*/*"]}), ContentTypeRefused),
        (httpx.Response(200, json=BUCKET | {"allowed_mime_types": ["image/*"]}), StorageUnavailable),
        (httpx.Response(200, json=BUCKET | {"allowed_mime_types": []}), StorageUnavailable),
        (said("404", "Bucket not found"), ObjectNotFound),
        (httpx.Response(401, json={"message": "Invalid API key"}), StorageDenied),
    ],
)
async def test_a_refusal_that_got_lost_is_found_at_the_bucket(
    desk: Desk, bucket: httpx.Response, expected: type[StorageError]
) -> None:
    respx.post(OBJECT).mock(side_effect=httpx.ReadError)
    respx.get(f"{BASE}/bucket/b").mock(return_value=bucket)
    with pytest.raises(StorageError) as caught:
        await desk.put("a.png")
    assert type(caught.value) is expected


@respx.mock
async def test_downloads_ask_for_plain_bytes_and_carry_no_key(desk: Desk) -> None:
    respx.post(SIGN).respond(json={"signedURL": "/object/sign/b/a.png?token=eyJx.y.z"})
    route = respx.get(SIGN, params={"token": "eyJx.y.z"}).respond(content=b"abc", headers={"etag": '"1"'})
    assert await desk.get("a.png") == b"abc"
    sent = route.calls.last.request
    assert sent.headers["accept-encoding"] == "identity"
    assert KEY not in str(sent.headers)
    assert sent.url.host == "abcdefgh.supabase.co"


@respx.mock
@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, content=b"abc", headers={"content-length": "4"}),
        httpx.Response(200, content=b"abc", headers={"content-length": "2"}),
        httpx.Response(200, stream=httpx.ByteStream(b"abc")),
        httpx.Response(206, content=b"abc"),
        httpx.Response(302, headers={"location": "http://169.254.169.254/"}),
        said("400", "InvalidJWT"),
    ],
)
async def test_replies_that_are_no_whole_object(desk: Desk, reply: httpx.Response) -> None:
    respx.post(SIGN).respond(json={"signedURL": "/object/sign/b/a.png?token=t"})
    respx.get(SIGN).mock(return_value=reply)
    with pytest.raises(StorageError):
        await desk.get("a.png")
    assert desk.files() == 0


@respx.mock
@pytest.mark.parametrize("declared", ["2000000000", None])
async def test_too_much_is_not_taken(desk: Desk, declared: str | None) -> None:
    respx.post(SIGN).respond(json={"signedURL": "/object/sign/b/a.png?token=t"})
    headers = {"content-length": declared or "100"}
    respx.get(SIGN).mock(return_value=httpx.Response(200, content=bytes(300_000), headers=headers))
    with pytest.raises(ObjectTooLarge):
        await desk.get("a.png", max_bytes=1000)
    assert desk.files() == 0


@respx.mock
@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example/object/sign/b/a.png?token=t",
        "//evil.example/object/sign/b/a.png",
        "/https://evil.example/object/sign/b/a.png",
        "/../../rest/v1/models",
        "/object/public/b/a.png",
        None,
    ],
)
async def test_a_link_elsewhere_is_not_followed(desk: Desk, link: str | None) -> None:
    respx.post(SIGN).respond(json={"signedURL": link})
    with pytest.raises(StorageUnavailable):
        await desk.get("a.png")
    assert {call.request.method for call in respx.calls} == {"POST"}


@respx.mock
async def test_lists_go_on_to_the_last_page(desk: Desk) -> None:
    def page(name: str, cursor: str | None) -> dict[str, object]:
        moment = "2026-11-21T02:35:33.261Z"
        found = {"id": "1", "name": name, "updated_at": moment, "created_at": moment, "metadata": {"size": 7}}
        return {"hasNext": cursor is not None, "folders": [], "objects": [found], "nextCursor": cursor}

    route = respx.post(f"{BASE}/object/list-v2/b")
    route.side_effect = [httpx.Response(200, json=page("a", "c1")), httpx.Response(200, json=page("b", None))]
    assert await desk.keys() == ["a", "b"]
    assert b'"cursor":"c1"' in route.calls.last.request.content
    route.side_effect = [httpx.Response(200, json=page("a", "") | {"nextCursor": None, "hasNext": True})]
    with pytest.raises(StorageUnavailable):
        await desk.keys()


@respx.mock
async def test_a_bucket_is_asked_once_in_a_while(desk: Desk) -> None:
    route = respx.get(f"{BASE}/bucket/b").respond(json=BUCKET)
    assert [await desk.storage.is_public("b") for _ in range(3)] == [True] * 3
    assert route.call_count == 1


@respx.mock
async def test_secrets_are_not_logged(
    desk: Desk, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, logger="app")
    respx.post(SIGN).mock(side_effect=[httpx.ConnectError("x"), said("404", "not_found")])
    with pytest.raises(ObjectNotFound):
        await desk.get("a.png")
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err + caplog.text


async def test_what_can_not_work_is_said_at_once() -> None:
    settings: Settings = storage_settings("https://x.supabase.co", "")
    with pytest.raises(ConfigurationError) as caught:
        await SupabaseStorage.open(settings)
    assert "SUPABASE_URL" in str(caught.value)
