"""Storage that misbehaves on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import httpx
import pytest

from tests.loopback import loopback
from tests.sandbox_process import SandboxProcess, running_sandbox
from tests.servers import PostgresServer, server_home
from tests.unit.sandbox_supabase.conftest import BUCKET

OBJECT = f"/object/{BUCKET}/a"


@pytest.fixture
def admin(sandbox: SandboxProcess) -> Generator[httpx.Client]:
    key = sandbox.settings.admin_key.get_secret_value()
    with httpx.Client(base_url=f"{sandbox.url}/admin", headers={"X-Admin-Key": key}, timeout=60) as client:
        yield client
        client.delete("/storage-faults").raise_for_status()


def arm(admin: httpx.Client, **fault: object) -> None:
    assert admin.post("/storage-faults", json=fault).status_code == 201


def test_errors_before_the_work(admin: httpx.Client, service: httpx.Client) -> None:
    arm(admin, kind="error_before", status=502, count=2, method="POST", path_contains="/object/")
    arm(admin, kind="database_timeout", count=1, method="GET")
    assert [service.post(OBJECT, content=b"x").status_code for _ in range(3)] == [502, 502, 200]
    late = service.get(OBJECT)
    assert (late.status_code, late.json()["statusCode"]) == (544, "544")
    assert service.get(OBJECT).content == b"x"
    assert admin.get("/storage-faults").json() == {"armed": [], "hits": 3}


def test_a_dropped_reply_did_its_work(admin: httpx.Client, service: httpx.Client) -> None:
    arm(admin, kind="drop_reply", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        service.post(OBJECT, content=b"stored all the same")
    assert service.get(OBJECT).content == b"stored all the same"


def test_an_upload_that_is_read_slowly_and_what_storage_saw_of_it(admin: httpx.Client, service: httpx.Client) -> None:
    path = f"/object/{BUCKET}/seen"
    arm(admin, kind="slow_upload", count=1, bytes_per_second=20_000)
    begun = threading.Thread(target=lambda: service.post(path, content=bytes(10_000)))
    begun.start()

    def seen() -> list[tuple[int, int | None, bool]]:
        calls = admin.get("/storage-calls", params={"path_contains": path}).json()
        return [(call["received"], call["status"], call["is_over"]) for call in calls]

    while not seen() or not seen()[0][0]:
        time.sleep(0.01)
    assert seen() == [(10_000, None, False)], "read, and not passed on"
    begun.join()
    assert seen() == [(10_000, 200, True)]
    service.post(path, content=b"again")
    assert [status for _, status, _ in seen()] == [200, 400]
    assert admin.get("/storage-calls", headers={"X-Admin-Key": "wrong"}).status_code == 403


def test_a_truncated_download(admin: httpx.Client, service: httpx.Client) -> None:
    service.put(OBJECT, content=b"0123456789" * 100_000).raise_for_status()
    arm(admin, kind="truncate", count=1)
    with pytest.raises(httpx.RemoteProtocolError):
        service.get(OBJECT)
    assert len(service.get(OBJECT).content) == 1_000_000


def test_a_slow_download_is_whole(admin: httpx.Client, service: httpx.Client) -> None:
    content = bytes(range(256)) * 200
    service.put(OBJECT, content=content).raise_for_status()
    arm(admin, kind="slow", count=1, bytes_per_second=400_000, method="GET")
    with service.stream("GET", OBJECT) as reply:
        blocks = list(reply.iter_raw())
    assert b"".join(blocks) == content
    assert len(blocks) > 1


def test_chances_are_repeatable(admin: httpx.Client, service: httpx.Client) -> None:
    service.put(OBJECT, content=b"x").raise_for_status()
    arm(admin, kind="error_before", probability=0.5)
    statuses = [service.get(OBJECT).status_code for _ in range(60)]
    assert 10 < statuses.count(503) < 50
    arm(admin, kind="error_before", probability=0.0)
    admin.delete("/storage-faults").raise_for_status()
    assert service.get(OBJECT).status_code == 200


def test_only_the_admin_arms(sandbox: SandboxProcess) -> None:
    for key in ("", "wrong"):
        reply = loopback.post(
            f"{sandbox.url}/admin/storage-faults", json={"kind": "truncate"}, headers={"X-Admin-Key": key}
        )
        assert reply.status_code == 403


def test_without_its_database_storage_says_so_and_comes_back() -> None:
    with (
        PostgresServer.running("embedded_postgres") as server,
        server_home("sb") as home,
        running_sandbox(server.postgres.dsn("migrated"), home) as sandbox,
    ):
        key = sandbox.settings.supabase_service_key.get_secret_value()
        with httpx.Client(base_url=f"{sandbox.supabase_url}/storage/v1", headers={"apikey": key}, timeout=30) as http:
            http.post("/bucket", json={"name": "b"}).raise_for_status()
            server.postgres.stop()
            away = http.get("/bucket/b")
            assert (away.status_code, away.json()["code"]) == (544, "DatabaseTimeout")
            server.postgres.start()
            assert http.get("/bucket/b").json()["id"] == "b"
