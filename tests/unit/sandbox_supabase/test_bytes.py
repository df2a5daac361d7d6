"""Rows and bytes stay together, whatever happens to an upload, and no body is ever whole in memory."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx
import pytest

from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess
from tests.unit.sandbox_supabase.conftest import BUCKET

MIB = 1024 * 1024


def files_of(sandbox: SandboxProcess) -> list[str]:
    directory = sandbox.storage_directory / BUCKET
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def versions_of(service: httpx.Client) -> list[str]:
    names = [found["name"] for found in service.post(f"/object/list-v2/{BUCKET}", json={}).json()["objects"]]
    return sorted(service.get(f"/object/info/{BUCKET}/{name}").json()["version"] for name in names)


def test_every_row_has_its_bytes_and_nothing_is_left_over(sandbox: SandboxProcess, service: httpx.Client) -> None:
    def create(number: int) -> int:
        # a refusal leaves the body unread: the connection is of no more use
        close = {"connection": "close"}
        return service.post(f"/object/{BUCKET}/race", content=bytes([number]) * 300_000, headers=close).status_code

    def overwrite(number: int) -> int:
        return service.put(f"/object/{BUCKET}/same", content=bytes([number]) * 300_000).status_code

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(create, range(8)))
        overwritten = list(threads.map(overwrite, range(8)))
    assert {200} <= set(created) <= {200, 400}  # creating is no lock
    assert overwritten == [200] * 8
    body = {"bucketId": BUCKET, "sourceKey": "race", "destinationKey": "moved"}
    service.post("/object/move", json=body).raise_for_status()
    service.post("/object/copy", json={**body, "sourceKey": "same", "destinationKey": "copied"}).raise_for_status()
    assert files_of(sandbox) == versions_of(service)
    assert len(files_of(sandbox)) == 3

    service.request("DELETE", f"/object/{BUCKET}", json={"prefixes": ["same", "moved", "copied"]}).raise_for_status()
    assert files_of(sandbox) == []


def test_a_client_that_hangs_up_leaves_nothing(sandbox: SandboxProcess, service: httpx.Client) -> None:
    def half() -> Generator[bytes]:
        yield b"x" * MIB
        deadline = time.monotonic() + 20
        while not any(name.startswith("incoming-") for name in files_of(sandbox)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        service.post(f"/object/{BUCKET}/half", content=half())
    deadline = time.monotonic() + 20
    while files_of(sandbox):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert service.get(f"/object/info/{BUCKET}/half").json()["code"] == "NoSuchKey"


def test_a_reader_keeps_its_version_while_it_is_replaced(service: httpx.Client) -> None:
    service.put(f"/object/{BUCKET}/busy", content=b"a" * 8 * MIB).raise_for_status()
    with service.stream("GET", f"/object/{BUCKET}/busy") as reply:
        blocks = reply.iter_bytes(64 * 1024)
        first = next(blocks)
        service.put(f"/object/{BUCKET}/busy", content=b"b" * MIB).raise_for_status()
        rest = b"".join(blocks)
    assert first + rest == b"a" * 8 * MIB


def _raw(mebibytes: int) -> Iterator[bytes]:
    for _ in range(mebibytes):
        yield b"\r\n--" * (MIB // 4)  # what a form's parser likes least


def _form(mebibytes: int) -> Iterator[bytes]:
    yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    yield from _raw(mebibytes)
    yield b"\r\n--B--\r\n"


def _resident_kib(pid: int) -> int:
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)]))


@pytest.mark.parametrize("encoding", ["raw", "form"])
def test_large_objects_pass_in_little_memory(sandbox: SandboxProcess, service: httpx.Client, encoding: str) -> None:
    assert sandbox.process is not None
    pid, mebibytes = sandbox.process.pid, 300 if encoding == "raw" else 48
    service.put(f"/object/{BUCKET}/warm", content=_raw(4)).raise_for_status()
    before = _resident_kib(pid)
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, _resident_kib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        if encoding == "raw":
            stored = service.put(f"/object/{BUCKET}/large", content=_raw(mebibytes))
        else:
            headers = {"content-type": "multipart/form-data; boundary=B"}
            stored = service.put(f"/object/{BUCKET}/large", content=_form(mebibytes), headers=headers)
        stored.raise_for_status()
        with service.stream("GET", f"/object/{BUCKET}/large") as reply:
            size = sum(len(block) for block in reply.iter_bytes())
    finally:
        done.set()
        watcher.join()
    assert size == mebibytes * MIB
    assert peak - before < 40 * 1024


def test_state_outlives_a_crash(sandbox: SandboxProcess, service: httpx.Client) -> None:
    service.put(f"/object/{BUCKET}/kept", content=b"kept").raise_for_status()
    link = service.post(f"/object/sign/{BUCKET}/kept", json={"expiresIn": 600}).json()["signedURL"]
    account = {"email": "keeper@example.com", "password": "long enough"}
    key = {"apikey": sandbox.settings.supabase_publishable_key.get_secret_value()}
    session = loopback.post(f"{sandbox.supabase_url}/auth/v1/signup", json=account, headers=key).json()
    leftover = sandbox.storage_directory / BUCKET / "incoming-of-a-dead-process"
    leftover.write_bytes(b"x")
    sandbox.kill()
    sandbox.start()
    assert loopback.get(f"{sandbox.supabase_url}/storage/v1{link}").content == b"kept"
    headers = {**key, "Authorization": f"Bearer {session['access_token']}"}
    assert loopback.get(f"{sandbox.supabase_url}/auth/v1/user", headers=headers).json()["email"] == account["email"]
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["..", ".", "a/b", "ü", ""])
def test_bucket_names_stay_inside(service: httpx.Client, name: str) -> None:
    assert service.post("/bucket", json={"name": name}).json()["code"] == "InvalidBucketName"


@pytest.mark.parametrize("key", ["%2e%2e/escape", "a/%2e%2e/%2e%2e/escape", "nul%00"])
def test_keys_stay_inside(sandbox: SandboxProcess, service: httpx.Client, key: str) -> None:
    reply = service.post(f"{service.base_url}object/{BUCKET}/{key}", content=b"x")
    assert reply.json()["code"] == "InvalidKey"
    assert not list(sandbox.settings.home.rglob("escape"))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/object/list/{BUCKET}", {"prefix": "", "limit": "many"}),
        (f"/object/list/{BUCKET}", {"prefix": "", "sortBy": {"column": "metadata; drop table"}}),
        (f"/object/list/{BUCKET}", {"prefix": ["a"]}),
        (f"/object/list/{BUCKET}", {"prefix": "\0"}),
        (f"/object/list-v2/{BUCKET}", {"cursor": "bm90IGpzb24="}),
        (f"/object/list-v2/{BUCKET}", {"cursor": "ü"}),
        (f"/object/sign/{BUCKET}/a", {"expiresIn": "soon"}),
        (f"/object/sign/{BUCKET}/a", {"expiresIn": -5}),
        (f"/object/sign/{BUCKET}", {"paths": [["a"]], "expiresIn": 5}),
        (f"/object/sign/{BUCKET}", {"paths": ["a"] * 1001, "expiresIn": 5}),
        ("/object/copy", {"bucketId": BUCKET, "sourceKey": ["a"], "destinationKey": "b"}),
        ("/bucket", {"name": "sized", "file_size_limit": "wide"}),
    ],
)
def test_nonsense_is_refused_politely(service: httpx.Client, path: str, body: dict[str, object]) -> None:
    reply = service.post(path, json=body)
    assert reply.status_code == 400
    assert reply.json()["statusCode"] == "400"


async def test_rows_are_not_deleted_behind_the_api(sandbox: SandboxProcess, service: httpx.Client) -> None:
    service.put(f"/object/{BUCKET}/guarded", content=b"x").raise_for_status()
    connection = await asyncpg.connect(sandbox.settings.database_url.get_secret_value())
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("delete from storage.objects")
        await connection.execute("insert into storage.objects (bucket_id, name) values ($1, 'foreign')", BUCKET)
    finally:
        await connection.close()
    listed = service.post(f"/object/list/{BUCKET}", json={"prefix": ""}).json()
    assert [entry["name"] for entry in listed] == ["foreign", "guarded"]
    assert service.get(f"/object/{BUCKET}/foreign").json()["code"] == "NoSuchKey"
