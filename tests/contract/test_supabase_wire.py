"""Storage on the wire: statuses, bodies and headers that clients other than Python's rely on."""

from __future__ import annotations

import base64
import json
import time
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.contract.supabase_target import SupabaseTarget, User
from tests.loopback import loopback

PNG = {"content-type": "image/png"}


def put(http: httpx.Client, target: SupabaseTarget, bucket: str, key: str, content: bytes = b"0123456789") -> None:
    reply = http.post(f"{target.storage}/object/{bucket}/{key}", content=content, headers=PNG)
    assert reply.status_code == 200, reply.text


def test_refusals_are_http_400_with_the_true_status_inside(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        missing = http.get(f"{supabase.storage}/object/{bucket}/none")
        duplicate = http.post(f"{supabase.storage}/object/{bucket}/a", content=b"x", headers=PNG)
        no_bucket = http.get(f"{supabase.storage}/object/{bucket}-not/a")
        bad_key = http.post(f"{supabase.storage}/object/{bucket}/%C3%A9.txt", content=b"x", headers=PNG)
    for reply, *expected in (
        (missing, "404", "not_found", "Object not found", "NoSuchKey"),
        (duplicate, "409", "Duplicate", "The resource already exists", "KeyAlreadyExists"),
        (no_bucket, "404", "Bucket not found", "Bucket not found", "NoSuchBucket"),
        (bad_key, "400", "InvalidKey", "Invalid key: é.txt", "InvalidKey"),
    ):
        assert reply.status_code == 400
        body = reply.json()
        assert [body[name] for name in ("statusCode", "error", "message", "code")] == expected


def test_who_proves_nothing_is_refused(supabase: SupabaseTarget, bucket: str, user: User) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
    url = f"{supabase.storage}/object/{bucket}/a"
    anonymous = loopback.get(url)
    assert (anonymous.status_code, anonymous.json()["code"]) == (400, "NoSuchBucket")
    as_public = loopback.get(f"{supabase.storage}/object/public/{bucket}/a")
    assert (as_public.status_code, as_public.json()["code"]) == (400, "NoSuchBucket")
    garbage = loopback.post(url, content=b"x", headers={**PNG, "Authorization": "Bearer nonsense"})
    assert (garbage.status_code, garbage.json()["statusCode"], garbage.json()["code"]) == (400, "403", "AccessDenied")
    head, _, signature = user.access_token.rpartition(".")
    forged = f"{head}.{signature[::-1]}"
    with supabase.http(forged) as http:
        reply = http.post(url, content=b"x", headers=PNG)
    assert reply.json()["statusCode"] == "403"
    with supabase.http(apikey=supabase.publishable_key) as http:  # anon: valid, and may see nothing
        assert http.get(url).json()["code"] == "NoSuchKey"
        assert http.post(f"{supabase.storage}/object/list/{bucket}", json={"prefix": ""}).json() == []


def test_download_headers(supabase: SupabaseTarget, bucket: str) -> None:
    url = f"{supabase.storage}/object/{bucket}/a"
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        reply = http.get(url)
        assert reply.headers["content-type"] == "image/png"
        assert reply.headers["content-length"] == "10"
        assert reply.headers["accept-ranges"] == "bytes"
        parsedate_to_datetime(reply.headers["last-modified"])
        etag = reply.headers["etag"]
        assert etag.startswith('"')

        unchanged = http.get(url, headers={"if-none-match": etag})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        head = http.head(url)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
        authenticated = http.get(f"{supabase.storage}/object/authenticated/{bucket}/a")
        assert authenticated.content == b"0123456789"

        named = http.get(url, params={"download": "größe.png"}).headers["content-disposition"]
        assert named == "attachment; filename=gr%C3%B6%C3%9Fe.png; filename*=UTF-8''gr%C3%B6%C3%9Fe.png"
        assert http.get(url, params={"download": ""}).headers["content-disposition"] == "attachment;"


@pytest.mark.parametrize(
    ("wanted", "content", "described"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=5-", b"56789", "bytes 5-9/10"),
        ("bytes=-5", b"56789", "bytes 5-9/10"),
        ("bytes=8-99", b"89", "bytes 8-9/10"),
    ],
)
def test_ranges(supabase: SupabaseTarget, bucket: str, wanted: str, content: bytes, described: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        reply = http.get(f"{supabase.storage}/object/{bucket}/a", headers={"range": wanted})
    assert (reply.status_code, reply.content, reply.headers["content-range"]) == (206, content, described)


def test_a_range_beyond_the_end_is_416(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        reply = http.get(f"{supabase.storage}/object/{bucket}/a", headers={"range": "bytes=10-12"})
    assert (reply.status_code, reply.json()["code"]) == (416, "InvalidRange")


def test_html_is_served_as_text(supabase: SupabaseTarget, public_bucket: str) -> None:
    with supabase.http() as http:
        url = f"{supabase.storage}/object/{public_bucket}/page"
        http.post(url, content=b"<script>", headers={"content-type": "text/html; charset=utf-8"}).raise_for_status()
    reply = loopback.get(f"{supabase.storage}/object/public/{public_bucket}/page")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain")


def test_raw_upload_with_its_headers(supabase: SupabaseTarget, bucket: str) -> None:
    metadata = base64.b64encode(json.dumps({"a": 1}).encode()).decode()
    headers = {"content-type": "model/gltf-binary", "cache-control": "max-age=60", "x-metadata": metadata}
    with supabase.http() as http:
        reply = http.post(f"{supabase.storage}/object/{bucket}/u1/a.glb", content=b"raw", headers=headers)
        assert reply.json()["Key"] == f"{bucket}/u1/a.glb"
        info = http.get(f"{supabase.storage}/object/info/{bucket}/u1/a.glb").json()
        assert info["id"] == reply.json()["Id"]
        assert (info["content_type"], info["cache_control"]) == ("model/gltf-binary", "max-age=60")
        assert (info["metadata"], info["size"]) == ({"a": 1}, 3)
        again = http.put(f"{supabase.storage}/object/{bucket}/u1/a.glb", content=b"more", headers=PNG)
        assert again.json() == reply.json()


def test_form_upload_with_an_empty_part_name(supabase: SupabaseTarget, bucket: str) -> None:
    """A browser's client sends its file under no name."""
    body = (
        b'--b0undary\r\nContent-Disposition: form-data; name="cacheControl"\r\n\r\n60\r\n'
        b'--b0undary\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"k": "v"}\r\n'
        b'--b0undary\r\nContent-Disposition: form-data; name=""; filename="blob"\r\nContent-Type: image/webp\r\n\r\n'
        b"\r\n--b0undar with a lookalike boundary\r\n--\r\n--b0undary--\r\n"
    )
    url = f"{supabase.storage}/object/{bucket}/blob"
    with supabase.http() as http:
        http.post(
            url, content=body, headers={"content-type": "multipart/form-data; boundary=b0undary"}
        ).raise_for_status()
        reply = http.get(url)
        assert reply.content == b"\r\n--b0undar with a lookalike boundary\r\n--"
        assert reply.headers["content-type"] == "image/webp"
        info = http.get(f"{supabase.storage}/object/info/{bucket}/blob").json()
        assert (info["metadata"], info["cache_control"]) == ({"k": "v"}, "max-age=60")


def test_a_form_that_ends_early_stores_nothing(supabase: SupabaseTarget, bucket: str) -> None:
    head = b'--b0undary\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    body = head + b"half"
    url = f"{supabase.storage}/object/{bucket}/half"
    with supabase.http() as http:
        reply = http.post(url, content=body, headers={"content-type": "multipart/form-data; boundary=b0undary"})
        assert reply.is_error
        assert http.get(url).json()["code"] == "NoSuchKey"


def test_signed_urls_on_the_wire(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "u1/a.glb")
        put(http, supabase, bucket, "u1/b.glb")
        for seconds in ("60", 60):  # the Python client sends a string
            reply = http.post(f"{supabase.storage}/object/sign/{bucket}/u1/a.glb", json={"expiresIn": seconds})
            link = reply.json()["signedURL"]
            assert link.startswith(f"/object/sign/{bucket}/u1/a.glb?token=")
    served = loopback.get(f"{supabase.storage}{link}")
    assert (served.status_code, served.content) == (200, b"0123456789")
    assert "expires" in served.headers
    head = httpx.head(f"{supabase.storage}{link}")
    assert (head.status_code, head.headers["content-length"], head.headers["etag"]) == (
        200,
        "10",
        served.headers["etag"],
    )
    part = loopback.get(f"{supabase.storage}{link}", headers={"range": "bytes=2-3"})
    assert (part.status_code, part.content) == (206, b"23")

    token = link.partition("token=")[2]
    other = loopback.get(f"{supabase.storage}/object/sign/{bucket}/u1/b.glb", params={"token": token})
    assert (other.status_code, other.json()["code"]) == (400, "InvalidSignature")
    spoiled = loopback.get(f"{supabase.storage}/object/sign/{bucket}/u1/a.glb", params={"token": token[:-4] + "AAAA"})
    assert (spoiled.status_code, spoiled.json()["code"]) == (400, "InvalidJWT")


def test_a_signed_url_expires(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        reply = http.post(f"{supabase.storage}/object/sign/{bucket}/a", json={"expiresIn": 1})
        url = f"{supabase.storage}{reply.json()['signedURL']}"
        deadline = time.monotonic() + 30
        while not (served := http.get(url)).is_error:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert (served.status_code, served.json()["code"]) == (400, "InvalidJWT")


def test_folder_listing_orders_and_ignores_case(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        for key in ("Dir/b.png", "dir/A.png", "dir/c.png", "dir/sub/x.png"):
            put(http, supabase, bucket, key)

        def names(**options: object) -> list[str]:
            reply = http.post(f"{supabase.storage}/object/list/{bucket}", json={"prefix": "dir", **options})
            return [entry["name"] for entry in reply.raise_for_status().json()]

        assert sorted(names()) == ["A.png", "b.png", "c.png", "sub"]
        assert sorted(names(limit=2) + names(limit=2, offset=2)) == ["A.png", "b.png", "c.png", "sub"]
        by_time = [name for name in names(sortBy={"column": "created_at", "order": "desc"}) if name != "sub"]
        assert by_time == ["c.png", "A.png", "b.png"]


@pytest.mark.parametrize("column", ["name", "created_at"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_pages_hold_each_folder_and_object_once(supabase: SupabaseTarget, bucket: str, column: str, order: str) -> None:
    made = ["p/a", "p/b/1", "p/b/2", "p/c", "p/d/1", "p/d/2", "p/e"]
    wanted = ["p/a", "p/b/", "p/c", "p/d/", "p/e"]
    with supabase.http() as http:
        for key in made:
            put(http, supabase, bucket, key)
        for delimiter, entries in ((True, wanted), (False, made)):
            body = {"prefix": "p/", "limit": 2, "with_delimiter": delimiter}
            body |= {"sortBy": {"column": column, "order": order}}
            seen: list[str] = []
            while True:
                page = http.post(f"{supabase.storage}/object/list-v2/{bucket}", json=body).raise_for_status().json()
                found = [entry["name"] for entry in page["folders"] + page["objects"]]
                assert len(found) <= 2
                seen += found
                if not page["hasNext"]:
                    break
                body["cursor"] = page["nextCursor"]
            assert sorted(seen) == entries
            if not delimiter:
                assert seen == (entries if order == "asc" else entries[::-1])


def test_delete_one(supabase: SupabaseTarget, bucket: str) -> None:
    url = f"{supabase.storage}/object/{bucket}/a"
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
        assert http.delete(url).json() == {"message": "Successfully deleted"}
        assert http.get(url).json()["code"] == "NoSuchKey"


def test_buckets_that_do_not_exist(supabase: SupabaseTarget, bucket: str) -> None:
    """Only the routes of one object and of buckets say so."""
    none = f"{bucket}-not"
    with supabase.http() as http:

        def post(path: str, body: dict[str, object]) -> httpx.Response:
            return http.post(f"{supabase.storage}{path}", json=body)

        assert post(f"/object/list/{none}", {"prefix": ""}).json() == []
        assert post(f"/object/list-v2/{none}", {}).json() == {"folders": [], "hasNext": False, "objects": []}
        removed = http.request("DELETE", f"{supabase.storage}/object/{none}", json={"prefixes": ["a"]})
        assert (removed.status_code, removed.json()) == (200, [])
        signed = post(f"/object/sign/{none}", {"paths": ["a"], "expiresIn": 60}).json()
        assert [(entry["path"], entry["signedURL"]) for entry in signed] == [("a", None)]
        assert post(f"/object/sign/{none}/a", {"expiresIn": 60}).json()["code"] == "NoSuchKey"
        assert http.delete(f"{supabase.storage}/object/{none}/a").json()["code"] == "NoSuchKey"
        for url in (f"/bucket/{none}", f"/object/{none}/a", f"/object/info/{none}/a"):
            assert http.get(f"{supabase.storage}{url}").json()["code"] == "NoSuchBucket"


def test_without_authorization(supabase: SupabaseTarget, bucket: str) -> None:
    for method, path in (
        ("GET", "/bucket"),
        ("POST", f"/object/{bucket}/a"),
        ("DELETE", f"/object/{bucket}/a"),
        ("POST", f"/object/list/{bucket}"),
        ("GET", f"/object/authenticated/{bucket}/a"),
    ):
        reply = loopback.request(method, f"{supabase.storage}{path}", json={"prefix": ""} if method == "POST" else None)
        assert (reply.status_code, reply.json()["code"]) == (400, "InvalidRequest"), path
        assert reply.json()["message"] == "headers must have required property 'authorization'"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/object/list/{}", {}, "body must have required property 'prefix'"),
        ("/object/list/{}", {"prefix": "", "limit": 0}, "body/limit must be >= 1"),
        ("/object/list/{}", {"prefix": "", "offset": -1}, "body/offset must be >= 0"),
        ("/object/list-v2/{}", {"limit": 0}, "body/limit must be >= 1"),
        ("/object/sign/{}/a", {}, "body must have required property 'expiresIn'"),
        ("/object/sign/{}/a", {"expiresIn": 1.5}, "body/expiresIn must be integer"),
        ("/object/sign/{}", {"paths": [], "expiresIn": 5}, "body/paths must NOT have fewer than 1 items"),
        ("/bucket", {"id": "only-an-id"}, "body must have required property 'name'"),
        ("/bucket", {"name": "a-bucket", "public": "yes"}, "body/public must be boolean"),
    ],
)
def test_bodies_are_checked_against_their_schema(
    supabase: SupabaseTarget, bucket: str, path: str, body: dict[str, object], message: str
) -> None:
    with supabase.http() as http:
        reply = http.post(f"{supabase.storage}{path.format(bucket)}", json=body)
    expected = {"statusCode": "400", "error": "Error", "message": message, "code": "InvalidRequest"}
    assert (reply.status_code, reply.json()) == (400, expected)


@pytest.mark.parametrize(
    ("given", "limit"), [(1000, 1000), ("2000", 2000), ("10MB", 10_000_000), ("1.5MB", 1_500_000), (None, None), (0, 0)]
)
def test_size_limits_are_read(supabase: SupabaseTarget, given: object, limit: int | None) -> None:
    with supabase.bucket(file_size_limit=given) as name, supabase.http() as http:
        found = http.get(f"{supabase.storage}/bucket/{name}").json()
    assert found["file_size_limit"] == limit
    assert "type" not in found


@pytest.mark.parametrize("given", ["50 MB", "1TB", "abc", -1, 10.5])
def test_size_limits_that_are_none(supabase: SupabaseTarget, bucket: str, given: object) -> None:
    with supabase.http() as http:
        body = {"name": f"{bucket}-2", "file_size_limit": given}
        assert http.post(f"{supabase.storage}/bucket", json=body).json()["code"] == "InvalidRequest"
        assert http.get(f"{supabase.storage}/bucket/{bucket}-2").json()["code"] == "NoSuchBucket"


def test_what_is_taken_for_nothing(supabase: SupabaseTarget, bucket: str) -> None:
    """Metadata that is none, keys with empty parts, a body without a type."""
    with supabase.http() as http:
        for key, headers in (("a//b", {}), ("a/b/", {}), ("untyped", {}), ("md", {"x-metadata": "!!"})):
            url = f"{supabase.storage}/object/{bucket}/{key}"
            request = http.build_request("POST", url, content=b"x", headers=headers)
            assert http.send(request).status_code == 200, key
            info = http.get(f"{supabase.storage}/object/info/{bucket}/{key}")
            assert (info.json()["metadata"], info.json()["content_type"]) == ({}, "application/octet-stream")
            assert info.headers["etag"] == info.json()["etag"]
            assert info.headers["cache-control"] == "no-cache"


def test_more_than_a_thousand_keys_are_removed(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "last")
        body = {"prefixes": [*(f"none-{n}" for n in range(1200)), "last"]}
        gone = http.request("DELETE", f"{supabase.storage}/object/{bucket}", json=body).json()
        assert [(row["name"], row["owner"], row["owner_id"]) for row in gone] == [("last", "", "")]


def test_what_a_user_may_not_remove(supabase: SupabaseTarget, bucket: str, user: User) -> None:
    with supabase.http() as http:
        put(http, supabase, bucket, "a")
    with supabase.http(user.access_token) as http:
        refused = http.delete(f"{supabase.storage}/object/{bucket}/a")
        assert (refused.status_code, refused.json()["statusCode"], refused.json()["code"]) == (
            400,
            "403",
            "AccessDenied",
        )
        assert http.delete(f"{supabase.storage}/object/{bucket}/none").json()["code"] == "NoSuchKey"
        emptied = http.post(f"{supabase.storage}/bucket/{bucket}/empty")
        assert (emptied.status_code, emptied.json()["code"]) == (403, "AccessDenied")


def test_pages_name_their_last_key(supabase: SupabaseTarget, bucket: str) -> None:
    with supabase.http() as http:
        for key in ("p/a", "p/b/1", "p/c"):
            put(http, supabase, bucket, key)
        body = {"prefix": "p/", "limit": 2, "with_delimiter": True}
        page = http.post(f"{supabase.storage}/object/list-v2/{bucket}", json=body).json()
    assert page["nextCursorKey"].rstrip("/") == "p/b"
    assert [(found["key"], found["name"]) for found in page["objects"]] == [("a", "p/a")]
    assert [(found["key"], found["name"], found["id"]) for found in page["folders"]] == [("b", "p/b/", None)]
