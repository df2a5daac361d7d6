from __future__ import annotations

import re
from urllib.parse import quote
from uuid import UUID

import pytest
from app.domain.storage_urls import ContentRef, StorageRef, parse_storage_url
from app.errors import AppError, ErrorCode
from hypothesis import example, given
from hypothesis import strategies as st

PROJECT = "https://abcdefgh.supabase.co"
PUBLIC = "https://api.example.com/v1"
BUCKETS = frozenset({"user_input_files_bucket", "makeit3d_app_assets"})
OBJECT = f"{PROJECT}/storage/v1/object"
BUCKET = "user_input_files_bucket"
FILE = UUID("8f14e45f-ceea-467f-9c4f-1a2b3c4d5e6f")

INVALID, FOREIGN = ErrorCode.INPUT_URL_INVALID, ErrorCode.INPUT_URL_FOREIGN
NOT_ALLOWED = ErrorCode.INPUT_BUCKET_NOT_ALLOWED


def parse(url: str, *, project: str = PROJECT, public: str = PUBLIC) -> StorageRef | ContentRef:
    return parse_storage_url(url, supabase_url=project, public_base_url=public, allowed_buckets=BUCKETS)


def refusal(url: str, **bases: str) -> ErrorCode:
    with pytest.raises(AppError) as caught:
        parse(url, **bases)
    return caught.value.error


@pytest.mark.parametrize(
    "url",
    [
        f"{OBJECT}/public/{BUCKET}/u1/cat.png",
        f"{OBJECT}/sign/{BUCKET}/u1/cat.png?token=eyJ.eyJ.abc",
        f"{OBJECT}/authenticated/{BUCKET}/u1/cat.png",
        f"{OBJECT}/{BUCKET}/u1/cat.png",
        f"{OBJECT}/public/{BUCKET}/u1/cat.png?download=x.png&t=1",
        f"{OBJECT}/public/{BUCKET}/u1/c%61t.png",
        f"https://ABCDEFGH.Supabase.CO/storage/v1/object/public/{BUCKET}/u1/cat.png",
        f"HTTPS://abcdefgh.supabase.co:443/storage/v1/object/public/{BUCKET}/u1/cat.png",
        f"https://abcdefgh.supabase.co:/storage/v1/object/public/{BUCKET}/u1/cat.png",
    ],
)
def test_every_form_of_one_object(url: str) -> None:
    assert parse(url) == StorageRef(BUCKET, "u1/cat.png")


@pytest.mark.parametrize(
    "key", ["a.png", "u1/IMG (1).jpg", "u1/a+b@2x.png", "u1/x,y;z=1.png", "a/b/c/d/e/f.webp", "u1/don't.png", ".x/a"]
)
def test_names_that_people_give(key: str) -> None:
    assert parse(f"{OBJECT}/public/{BUCKET}/{quote(key)}") == StorageRef(BUCKET, key)
    assert parse(f"{OBJECT}/public/{BUCKET}/{quote(key, safe='/')}") == StorageRef(BUCKET, key)


def test_a_project_below_a_path_and_on_a_port() -> None:
    base = "http://127.0.0.1:8001/supabase"
    url = f"{base}/storage/v1/object/public/{BUCKET}/a.png"
    assert parse(url, project=base) == StorageRef(BUCKET, "a.png")
    assert refusal(url.replace(":8001", ":8002"), project=base) is FOREIGN
    assert refusal(url.replace(":8001", ":0"), project=base) is FOREIGN
    assert refusal(url.replace("/supabase/", "/openai/"), project=base) is FOREIGN
    assert refusal(url.replace("127.0.0.1", "localhost"), project=base) is FOREIGN


def test_a_project_with_an_international_name() -> None:
    url = f"https://xn--bcher-kva.example/storage/v1/object/public/{BUCKET}/a.png"
    assert parse(url, project="https://bücher.example") == StorageRef(BUCKET, "a.png")
    assert parse(url, project="https://xn--bcher-kva.example") == StorageRef(BUCKET, "a.png")
    assert refusal(url.replace("xn--bcher-kva", "bücher"), project="https://bücher.example") is INVALID


@pytest.mark.parametrize(
    "url",
    [
        f"https://evil.example/storage/v1/object/public/{BUCKET}/a.png",
        f"https://zyxwvuts.supabase.co/storage/v1/object/public/{BUCKET}/a.png",
        f"https://abcdefgh.supabase.co.evil.example/storage/v1/object/public/{BUCKET}/a.png",
        f"https://abcdefgh.supabase.co.:443/storage/v1/object/public/{BUCKET}/a.png",
        f"https://abcdefgh.supabase.co:444/storage/v1/object/public/{BUCKET}/a.png",
        f"http://abcdefgh.supabase.co/storage/v1/object/public/{BUCKET}/a.png",
        f"http://abcdefgh.supabase.co:443/storage/v1/object/public/{BUCKET}/a.png",
        "https://169.254.169.254/latest/meta-data/",
        "http://[::1]:80/storage/v1/object/public/b/a.png",
    ],
)
def test_other_places(url: str) -> None:
    assert refusal(url) is FOREIGN


@pytest.mark.parametrize(
    "url",
    [
        "",
        "cat.png",
        "/storage/v1/object/public/b/a.png",
        f"//abcdefgh.supabase.co/storage/v1/object/public/{BUCKET}/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://abcdefgh.supabase.co/storage/v1/object/public/b/a",
        "https://",
        "https:///storage/v1/object/public/b/a.png",
        "https://abcdefgh.supabase.co:99999/storage/v1/object/public/b/a.png",
        "https://abcdefgh.supabase.co:x/storage/v1/object/public/b/a.png",
        "https://[abc/storage",
        f"https://abcdefgh.supabase.co@evil.example/storage/v1/object/public/{BUCKET}/a.png",
        f"https://user:pw@abcdefgh.supabase.co/storage/v1/object/public/{BUCKET}/a.png",
        f"https://@abcdefgh.supabase.co/storage/v1/object/public/{BUCKET}/a.png",
        f"{OBJECT}/public/{BUCKET}/a.png#x",
        f"{OBJECT}/public/{BUCKET}/a.png#",
        f"{OBJECT}/public/{BUCKET}/../secrets/a.png",
        f"{OBJECT}/public/{BUCKET}/u1/./a.png",
        f"{OBJECT}/public/{BUCKET}/u1//a.png",
        f"{OBJECT}/public/{BUCKET}/u1/",
        f"{OBJECT}/public/{BUCKET}//a.png",
        f"{OBJECT}/public/{BUCKET}",
        f"{OBJECT}/public",
        f"{OBJECT}/",
        f"{OBJECT}/public/{BUCKET}/u1%2Fa.png",
        f"{OBJECT}/public/{BUCKET}/u1%2f..%2fa.png",
        f"{OBJECT}/public/{BUCKET}/%2e%2e/a.png",
        f"{OBJECT}/public/{BUCKET}/.%2E/a.png",
        f"{OBJECT}/public/{BUCKET}/%2e/a.png",
        f"{OBJECT}/public/{BUCKET}/u1%5Ca.png",
        f"{OBJECT}/public/{BUCKET}/u1\\a.png",
        f"{OBJECT}/public/{BUCKET}/%252e%252e/a.png",
        f"{OBJECT}/public/{BUCKET}/u1%252Fa.png",
        f"{OBJECT}/public/{BUCKET}/a%00.png",
        f"{OBJECT}/public/{BUCKET}/a.png%0A",
        f"{OBJECT}/public/{BUCKET}%0A/a.png",
        f"{OBJECT}/public/{BUCKET}/a%0D%0AX.png",
        f"{OBJECT}/public/{BUCKET}/a%7F.png",
        f"{OBJECT}/public/{BUCKET}/a%zz.png",
        f"{OBJECT}/public/{BUCKET}/a%.png",
        f"{OBJECT}/public/{BUCKET}/a%C3%A9.png",
        f"{OBJECT}/public/{BUCKET}/a%FF.png",
        f"{OBJECT}/public/{BUCKET}/é.png",
        f"{OBJECT}/public/{BUCKET}/a b.png",
        f"{OBJECT}/public/{BUCKET}/a\n.png",
        f"{OBJECT}/public/{BUCKET}/a\t.png",
        f" {OBJECT}/public/{BUCKET}/a.png",
        f"{OBJECT}/public/{BUCKET}/<a>.png",
        f"{OBJECT}/public/{BUCKET}/{'a' * 2000}.png",
        f"{OBJECT}/public/{BUCKET}/{'a' * 1025}",
        f"{PROJECT}/storage/v1/bucket/x",
        f"{PROJECT}/storage/v1/render/image/public/{BUCKET}/a.png",
        f"{PROJECT}/rest/v1/models",
        f"{PROJECT}/storage/v1/../v1/object/public/{BUCKET}/a.png",
        f"{PROJECT}",
    ],
)
def test_no_object_of_ours(url: str) -> None:
    assert refusal(url) is INVALID


@pytest.mark.parametrize("place", ["other", "user_input_files_bucket2", "info", "upload", "USER_INPUT_FILES_BUCKET"])
def test_other_buckets(place: str) -> None:
    assert refusal(f"{OBJECT}/{place}/u1/a.png") is NOT_ALLOWED


def test_content_links() -> None:
    assert parse(f"{PUBLIC}/assets/{FILE}/content?key=AbC-_9") == ContentRef(FILE, "AbC-_9")
    assert parse(f"{PUBLIC}/assets/{str(FILE).upper()}/content?x=1&key=k") == ContentRef(FILE, "k")


@pytest.mark.parametrize(
    "tail",
    [
        f"/assets/{FILE}/content",
        f"/assets/{FILE}/content?key=",
        f"/assets/{FILE}/content?key=a%0Ab",
        f"/assets/{FILE}/content?key={'a' * 257}",
        f"/assets/{'-' * 36}/content?key=k",
        f"/assets/{FILE}/content/?key=k",
        f"/assets/{FILE}/../{FILE}/content?key=k",
        f"/assets/{FILE}%0A/content?key=k",
        "/health/live",
    ],
)
def test_other_links_of_ours(tail: str) -> None:
    assert refusal(f"{PUBLIC}{tail}") is INVALID


def test_a_content_link_outside_our_path() -> None:
    assert refusal(f"https://api.example.com/assets/{FILE}/content?key=k") is FOREIGN
    assert refusal(f"https://api.example.com/v11/assets/{FILE}/content?key=k") is FOREIGN


def test_the_url_is_not_echoed() -> None:
    with pytest.raises(AppError) as caught:
        parse(f"{OBJECT}/sign/{BUCKET}/u1/%2e%2e/a.png?token=eyJsecret")
    assert "eyJsecret" not in str(caught.value)


SEGMENT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["..", ".", "%2e%2e", "%2F", "%0a", "\\"])


@given(
    head=st.sampled_from([f"{OBJECT}/public/", f"{OBJECT}/sign/", f"{OBJECT}/", f"{PUBLIC}/assets/"]),
    segments=st.lists(SEGMENT, max_size=5),
    how=st.sampled_from(["raw", "quoted", "twice"]),
    tail=st.text(max_size=10),
)
@example(head=f"{OBJECT}/public/", segments=[BUCKET, "a\n"], how="quoted", tail="")
def test_no_url_leads_astray(head: str, segments: list[str], how: str, tail: str) -> None:
    spelled = [segment if how == "raw" else quote(segment, safe="") for segment in segments]
    if how == "twice":
        spelled = [quote(segment, safe="") for segment in spelled]
    check_accepted(f"{head}{BUCKET}/{'/'.join(spelled)}{tail}")


@given(url=st.text(max_size=80))
def test_any_text(url: str) -> None:
    check_accepted(url)


def check_accepted(url: str) -> None:
    try:
        ref = parse(url)
    except AppError as error:
        allowed = error.error in (INVALID, FOREIGN, NOT_ALLOWED)
        if allowed:
            return
        raise
    if isinstance(ref, StorageRef):
        assert ref.bucket in BUCKETS
        assert re.fullmatch(r"[A-Za-z0-9_/!\-.*'() &$@=;:+,]+", ref.key)
        assert not {"", ".", ".."} & set(ref.key.split("/"))
