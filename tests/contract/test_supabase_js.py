"""The vendor's JavaScript client, unmodified, against Storage and Auth."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract.supabase_target import SupabaseTarget, User
from tests.node import installed

HERE = Path(__file__).parent / "supabase_js"


@pytest.fixture(scope="module")
def node() -> list[str]:
    """The command of a Node.js that finds the client installed as locked."""
    return installed(HERE)


@pytest.fixture(scope="module")
def seen(node: list[str], supabase: SupabaseTarget, user: User, inputs_bucket: str) -> dict[str, Any]:
    """What the script reports."""
    environment = {
        **os.environ,
        "SUPABASE_URL": supabase.url,
        "SUPABASE_PUBLISHABLE_KEY": supabase.publishable_key,
        "USER_EMAIL": user.email,
        "USER_PASSWORD": user.password,
        "BUCKET": inputs_bucket,
        "FOLDER": user.id,
    }
    try:
        done = subprocess.run(
            [*node, "test.mjs"], cwd=HERE, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        supabase.clear(inputs_bucket, f"{user.id}/")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_sign_in(seen: dict[str, Any], user: User) -> None:
    assert seen["wrongPassword"] == {"status": 400, "code": "invalid_credentials"}
    assert seen["session"] == {"type": "bearer", "expiresIn": 3600}
    assert seen["rotated"] is True
    assert seen["user"] == {"id": user.id, "email": user.email}
    assert seen["signOut"] is None


def test_uploads(seen: dict[str, Any], user: User, inputs_bucket: str) -> None:
    for name, file in (("uploadedBlob", "blob.png"), ("uploadedBytes", "bytes.png")):
        assert seen[name]["path"] == f"{user.id}/{file}"
        assert seen[name]["fullPath"] == f"{inputs_bucket}/{user.id}/{file}"
        assert seen[name]["id"]
    assert seen["replaced"] == f"{user.id}/text.txt"
    assert seen["blobInfo"] == {"contentType": "image/png", "metadata": {"made": "here"}}
    assert seen["formInfo"] == {"contentType": "image/webp", "cacheControl": "max-age=7"}
    assert seen["info"] == {
        "size": len("from bytes"),
        "contentType": "image/png",
        "cacheControl": "max-age=60",
        "metadata": {"n": 1},
    }


def test_refusals(seen: dict[str, Any]) -> None:
    assert seen["duplicate"] == {"status": 400, "statusCode": "409", "code": "KeyAlreadyExists"}
    assert seen["elsewhere"] == {"status": 400, "statusCode": "403", "code": "AccessDenied"}
    assert seen["missing"] == {"status": 400, "statusCode": "404", "code": "NoSuchKey"}
    assert (seen["exists"], seen["missingExists"]) == (True, False)


def test_reading(seen: dict[str, Any], user: User) -> None:
    assert seen["downloaded"] == {"text": "from a blob", "type": "image/png"}
    assert [name for name, _ in seen["listed"]] == ["blob.png", "bytes.png", "form.webp", "text.txt"]
    assert seen["listedV2"] == {"names": [f"{user.id}/blob.png", f"{user.id}/bytes.png"], "hasNext": True}
    assert seen["signed"] == {"status": 200, "text": "from a blob"}
    assert seen["signedMany"] == [[f"{user.id}/blob.png", False], [f"{user.id}/nothing", True]]


def test_moving_and_removing(seen: dict[str, Any], user: User) -> None:
    assert seen["moved"] == "from a blob"
    kept = ("blob.png", "bytes.png", "form.webp", "moved.png", "signed.png", "text.txt")
    assert seen["removed"] == [f"{user.id}/{name}" for name in kept]
    assert seen["left"] == 0
