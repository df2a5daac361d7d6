"""All six operations from outside: inputs in the user's storage, results in the bucket, rows, status and ledger."""

from __future__ import annotations

import io
import json
import struct
from typing import Any
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from tests.e2e.gateway import Gateway, User, sample
from tests.loopback import loopback

pytestmark = pytest.mark.generate


def new_task() -> str:
    return str(uuid4())


def accepted(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"].endswith(body["status_url"].removeprefix("http://127.0.0.1"))
    assert body["celery_task_id"] == body["job_id"]
    return body


def picture(url: str) -> Image.Image:
    answer = loopback.get(url, follow_redirects=True)
    assert answer.is_success
    return Image.open(io.BytesIO(answer.content))


def gltf(url: str) -> dict[str, Any]:
    """The JSON chunk of a GLB."""
    content = loopback.get(url, follow_redirects=True).content
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    (size,) = struct.unpack_from("<I", content, 12)
    return json.loads(content[20 : 20 + size])


@pytest.mark.usefixtures("drawn")
def test_text_to_image(user: User) -> None:
    task = new_task()
    body = accepted(
        user.post("/generate/text-to-image", {"task_id": task, "prompt": "a red fox, plain background", "n": 2})
    )
    status = user.finished(body["job_id"])
    assert status["status"] == "complete"
    assert status["progress"] == 100
    urls = status["result"]["image_urls"]
    assert [url.rpartition(f"/concepts/{task}/")[2] for url in urls] == ["0.png", "1.png"]
    assert status["asset_url"] == status["result_url"] == urls[0]
    first, second = (picture(url) for url in urls)
    assert first.size == second.size
    assert first.tobytes() != second.tobytes()


@pytest.mark.usefixtures("drawn")
def test_image_to_image_and_then_a_model_in_one_task(user: User, gateway: Gateway) -> None:
    task = new_task()
    source = user.put_input(sample("coffee.png"))
    before = len(gateway.paid())
    images = {"task_id": task, "input_image_asset_url": source, "prompt": "a clay figurine", "n": 1}
    concepts = user.finished(accepted(user.post("/generate/image-to-image", images))["job_id"])
    assert concepts["status"] == "complete"
    concept = concepts["result"]["image_urls"][0]
    body = accepted(user.post("/generate/image-to-model", {"task_id": task, "input_image_asset_urls": [concept]}))
    status = user.finished(task)
    assert status["job_id"] == body["job_id"]
    assert status["result"]["model_url"].endswith(f"/models/{task}/model.glb")
    document = gltf(status["result"]["model_url"])
    assert document["meshes"]
    assert document["images"]
    assert len(gateway.paid()) == before + 2


@pytest.mark.usefixtures("drawn")
def test_text_to_model(user: User) -> None:
    request = {"task_id": new_task(), "prompt": "a small wooden rowing boat", "face_limit": 5000}
    status = user.finished(accepted(user.post("/generate/text-to-model", request))["job_id"])
    assert status["status"] == "complete"
    document = gltf(status["asset_url"])
    faces = sum(
        document["accessors"][primitive["indices"]]["count"] // 3
        for mesh in document["meshes"]
        for primitive in mesh["primitives"]
    )
    assert 0 < faces <= 5000


def test_multiview_to_model(user: User) -> None:
    views = [user.put_input(sample(name)) for name in ("coffee.png", "coffee.png", "horse.png")]
    request = {"task_id": new_task(), "input_image_asset_urls": views}
    status = user.finished(accepted(user.post("/generate/image-to-model", request))["job_id"])
    assert status["status"] == "complete"


@pytest.mark.usefixtures("drawn")
def test_sketch_to_model_is_a_concept_and_a_model(user: User) -> None:
    task = new_task()
    sketch = user.put_input(sample("horse.png"))
    request = {"task_id": task, "input_sketch_asset_url": sketch, "prompt": "a wooden toy horse"}
    status = user.finished(accepted(user.post("/generate/sketch-to-model", request))["job_id"])
    assert status["status"] == "complete"
    whole = user.finished(task)
    assert [job["status"] for job in whole["jobs"]] == ["complete", "complete"]
    assert whole["result"]["image_urls"][0].endswith(f"/concepts/{task}/0.png")
    assert whole["result"]["model_url"].endswith(f"/models/{task}/model.glb")


def test_the_common_door_leads_to_the_same_work(user: User, gateway: Gateway) -> None:
    listed = user.http.get("/task-types").json()["task_types"]
    assert len(listed) >= 6
    params = {"prompt": "a small wooden boat", "texture": False, "face_limit": 500}
    before = len(gateway.paid())
    body = accepted(user.post("/tasks", {"task_type": "text-to-model", "params": params}))
    task = body["task_id"]  # made for the client
    status = user.finished(body["job_id"])
    assert (status["status"], status["operation"]) == ("complete", "text-to-model")
    assert status["result"]["model_url"].endswith(f"/models/{task}/model.glb")
    assert len(gateway.paid()) == before + 1
    # here the client names the task, so the body is the key, through whichever door it comes
    own = new_task()
    first = accepted(user.post("/tasks", {"type": "text_to_model", "input": params, "task_id": own}))
    again = accepted(user.post("/generate/text-to-model", {"task_id": own, **params}))
    assert again == first | {"deduplicated": True, "status": again["status"]}


def test_refine_by_draft_and_by_model_file(user: User) -> None:
    task = new_task()
    draft = user.finished(
        accepted(user.post("/generate/text-to-model", {"task_id": task, "prompt": "a boat"}))["job_id"]
    )
    provider_task = draft["jobs"][0]["provider_task_id"]
    request = {"task_id": task, "tripo_draft_task_id": provider_task, "prompt": "weathered oak"}
    refined = user.finished(accepted(user.post("/generate/refine-model", request))["job_id"])
    assert refined["asset_url"].endswith(f"/models/{task}/refined_model.glb")
    upload = {"task_id": task, "input_model_asset_url": draft["asset_url"], "prompt": "polished gold"}
    second = user.finished(accepted(user.post("/generate/refine-model", upload))["job_id"])
    assert second["status"] == "complete", second
    assert second["asset_url"].endswith(f"/models/{task}/refined_model_1.glb")
    first_mesh, second_mesh = gltf(draft["asset_url"]), gltf(second["asset_url"])
    assert len(first_mesh["meshes"]) == len(second_mesh["meshes"])


def test_a_repeat_is_answered_and_not_paid_again(user: User, gateway: Gateway) -> None:
    request = {"task_id": new_task(), "prompt": "a blue teapot"}
    first = accepted(user.post("/generate/text-to-image", request))
    second = accepted(user.post("/generate/text-to-image", request))
    assert second["job_id"] == first["job_id"]
    assert (first["deduplicated"], second["deduplicated"]) == (False, True)
    user.finished(first["job_id"])
    third = accepted(user.post("/generate/text-to-image", request))
    assert third["job_id"] == first["job_id"]
    digest = [row["request_hash"] for row in gateway.paid()]
    assert digest.count(digest[-1]) == 1
    variation = accepted(user.post("/generate/text-to-image", request, **{"Idempotency-Key": "another"}))
    assert variation["job_id"] != first["job_id"]
    clash = user.post("/generate/text-to-image", {**request, "prompt": "red"}, **{"Idempotency-Key": "another"})
    assert (clash.status_code, clash.json()["code"]) == (422, "idempotency_key_reused")


def test_nobody_sees_or_uses_what_is_not_theirs(user: User, gateway: Gateway) -> None:
    task = new_task()
    status = user.finished(
        accepted(user.post("/generate/text-to-image", {"task_id": task, "prompt": "a fox"}))["job_id"]
    )
    other = gateway.new_user()
    for path in (f"/tasks/{task}/status", f"/tasks/{status['job_id']}/status", f"/tasks/{task}"):
        assert other.http.get(path).json()["code"] == "task_not_found"
    assert other.post(f"/tasks/{task}/cancel", {}).status_code == 404
    taken = other.post("/generate/text-to-image", {"task_id": task, "prompt": "a fox"})
    assert (taken.status_code, taken.json()["code"]) == (404, "task_not_found")
    theirs = {"task_id": new_task(), "input_image_asset_urls": [status["asset_url"]]}
    assert other.post("/generate/image-to-model", theirs).json()["code"] == "input_not_found"


def test_a_refusal_reaches_the_row_and_the_status(user: User, gateway: Gateway) -> None:
    gateway.fault("tripo.submit", "moderation")
    body = accepted(user.post("/generate/text-to-model", {"task_id": new_task(), "prompt": "a boat refused"}))
    status = user.finished(body["job_id"])
    assert status["status"] == "failed"
    assert status["error"]["code"] == "provider_content_refused"


@pytest.mark.parametrize("fault", ["credits", "bad_key"])
def test_what_is_wrong_with_the_account_only_delays(user: User, gateway: Gateway, fault: str) -> None:
    gateway.fault("tripo.submit", fault)
    body = accepted(user.post("/generate/text-to-model", {"task_id": new_task(), "prompt": f"a boat {fault}"}))
    assert user.finished(body["job_id"])["status"] == "complete"


def test_a_rate_limit_of_the_provider_only_delays(user: User, gateway: Gateway) -> None:
    gateway.fault("tripo.submit", "busy", count=2)
    body = accepted(user.post("/generate/text-to-model", {"task_id": new_task(), "prompt": "a patient boat"}))
    assert user.finished(body["job_id"])["status"] == "complete"
