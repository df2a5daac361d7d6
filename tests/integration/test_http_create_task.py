"""``POST /tasks`` is a second door to the same work: what a type's own route does, says and refuses, it does, too."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from pydantic import SecretStr

from tests.integration.factories import make_draft, settings_with
from tests.integration.http_gateway import Gateway, gateway
from tests.unit.extension.registry import VIDEOS, build_registry

INPUTS = "user_input_files_bucket"
LINK = "{picture}"  # stands for the URL of a picture of the user's own
TYPES: dict[str, dict[str, Any]] = {
    "text-to-image": {"prompt": "a fox", "n": 2, "size": "1024x1024"},
    "image-to-image": {"prompt": "a fox", "input_image_asset_url": LINK},
    "text-to-model": {"prompt": "a fox", "face_limit": 1000},
    "image-to-model": {"input_image_asset_urls": [LINK, LINK], "texture": False},
    "sketch-to-model": {"input_sketch_asset_url": LINK, "style": "oak"},
    "refine-model": {"tripo_draft_task_id": "draft-1", "prompt": "oak"},
}
WRITTEN = """
select r.operation, r.scope, r.explicit_key, r.body_hash, j.step, j.type, j.provider, j.pool, j.lane, j.priority,
  j.params, j.estimate_micros
from makeit3d.requests r join makeit3d.jobs j on j.request_id = r.id where r.task_id = $1 order by j.step
"""


@pytest.fixture
async def gate(database: str, tmp_path: Path) -> AsyncGenerator[Gateway]:
    registry = build_registry()
    settings = settings_with(registry.providers, database, tmp_path, easel_api_key=SecretStr("easel-test"))
    async with gateway(settings, registry=registry) as opened:
        await opened.db.execute(VIDEOS.read_text(encoding="utf-8"))
        path = tmp_path / "photo.png"
        Image.new("RGB", (64, 64), "teal").save(path)
        await opened.services.storage.upload(INPUTS, f"{opened.user_id}/a.png", path, content_type="image/png")
        yield opened


def with_links(gate: Gateway, value: Any, token: str) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        return {name: with_links(gate, item, token) for name, item in value.items()}
    if isinstance(value, list):
        return [with_links(gate, item, token) for item in value]
    key = f"{INPUTS}/{gate.user_id}/a.png?token={token}"
    return f"{gate.services.settings.supabase_url}/storage/v1/object/sign/{key}" if value == LINK else value


async def ask(
    gate: Gateway, path: str, body: dict[str, Any], status: int = 202, *, key: str | None = None
) -> dict[str, Any]:
    answer = await gate.post(path, json=body, headers={} if key is None else {"Idempotency-Key": key})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    if status == 202:
        assert answer.headers["location"] == found["status_url"]
        assert int(answer.headers["retry-after"]) > 0
    else:
        assert answer.headers["content-type"] == "application/problem+json"
    return found


@pytest.mark.parametrize("name", TYPES)
async def test_both_doors_do_the_same_work_once(gate: Gateway, name: str) -> None:
    if name == "refine-model":
        await make_draft(gate.db, gate.user_id, "draft-1")
    params, again = (with_links(gate, TYPES[name], token) for token in ("one", "two"))
    own, other, third = (f"task-{uuid4()}" for _ in range(3))
    by_route = await ask(gate, f"/generate/{name}", {"task_id": own, **params})
    by_type = await ask(gate, "/tasks", {"task_type": name, "task_id": other, "params": params})
    assert by_type.keys() == by_route.keys()
    first, second = await gate.db.fetch(WRITTEN, own), await gate.db.fetch(WRITTEN, other)
    assert [dict(row) | {"scope": ""} for row in first] == [dict(row) | {"scope": ""} for row in second]

    # a repeat through the other door is a repeat, also by a link that was signed anew
    inner = {"family": name.replace("-", "_"), "input": {"task_id": own, **again}}
    assert await ask(gate, "/tasks", inner) == by_route | {"deduplicated": True}
    assert await ask(gate, f"/generate/{name}", {"task_id": other, **again}) == by_type | {"deduplicated": True}
    keyed = await ask(gate, f"/generate/{name}", {"task_id": third, **params}, key="key")
    body = {"type": name, "task_id": third, "params": again, "idempotency_key": '"key"'}
    assert await ask(gate, "/tasks", body) == keyed | {"deduplicated": True}
    changed = await ask(gate, "/tasks", body | {"params": again | {"style": "glass"}}, 422)
    assert changed["code"] == "idempotency_key_reused"
    assert (
        await gate.db.fetchval("select count(*) from makeit3d.requests where task_id = any($1)", [own, other, third])
        == 3
    )


async def test_without_a_task_id_a_task_is_made_and_only_a_key_makes_a_repeat(gate: Gateway) -> None:
    body = {"task_type": "text-to-image", "params": {"prompt": "a fox"}}
    first, second = await ask(gate, "/tasks", body), await ask(gate, "/tasks", body)
    assert first["task_id"] != second["task_id"]
    keyed = await ask(gate, "/tasks", body, key="k")
    assert await ask(gate, "/tasks", body, key="k") == keyed | {"deduplicated": True}
    other = body | {"params": {"prompt": "a hen"}}
    assert (await ask(gate, "/tasks", other, 422, key="k"))["code"] == "idempotency_key_reused"
    status = (await gate.get(f"/tasks/{keyed['task_id']}/status")).json()
    assert (status["operation"], status["status"]) == ("text-to-image", "pending")


async def test_the_key_of_one_user_is_not_the_key_of_another(gate: Gateway) -> None:
    body = {"task_type": "text-to-image", "params": {"prompt": "a fox"}, "idempotency_key": "k"}
    first, stranger = await ask(gate, "/tasks", body), await gate.another_user()
    answer = await gate.post("/tasks", json=body, headers=gate.headers(stranger))
    assert (answer.status_code, answer.json()["deduplicated"]) == (202, False)
    assert answer.json()["task_id"] != first["task_id"]
    taken = {"task_type": "text-to-image", "params": {"prompt": "a fox"}, "task_id": first["task_id"]}
    assert (await gate.post("/tasks", json=taken, headers=gate.headers(stranger))).status_code == 404


async def test_a_task_waits_for_others_and_for_no_longer_than_it_may(gate: Gateway) -> None:
    first = await ask(gate, "/tasks", {"task_type": "text-to-image", "params": {"prompt": "a fox"}})
    body = {"task_type": "text-to-model", "task_id": "task-behind-1", "params": {"prompt": "a fox"}}
    body |= {"depends_on": [first["task_id"]], "expires_in": 60}
    behind = await ask(gate, "/tasks", body)
    for path in ("/tasks/task-behind-1/status", f"/tasks/{behind['job_id']}/status"):
        status = (await gate.get(path)).json()
        assert (status["status"], status["waiting_for"]) == ("pending", "dependency")
        assert [job["waiting_for"] for job in status["jobs"]] == ["dependency"]
    (request,) = (await gate.get("/tasks/task-behind-1")).json()["requests"]
    assert request["depends_on"] == [first["task_id"]]
    left = await gate.db.fetchval(
        "select extract(epoch from expires_at - created_at)::integer from makeit3d.jobs where task_id = 'task-behind-1'"
    )
    assert left == 60
    # the older spelling is the same request; another condition makes another
    alias = {name: value for name, value in body.items() if name != "depends_on"}
    assert await ask(gate, "/tasks", alias | {"dependant_on": first["task_id"]}) == behind | {"deduplicated": True}
    free = await ask(gate, "/tasks", alias | {"dependant_on": None, "expires_in": None})
    assert not free["deduplicated"]
    keyed = body | {"task_id": "task-behind-2", "idempotency_key": "k"}
    await ask(gate, "/tasks", keyed)
    for other in ({"depends_on": []}, {"expires_in": 61}):
        assert (await ask(gate, "/tasks", keyed | other, 422))["code"] == "idempotency_key_reused"
    assert (await gate.post(f"/tasks/{first['task_id']}/cancel")).status_code == 200
    # it was accepted before: a repeat is told so, whatever became of what it depends on
    assert (await ask(gate, "/tasks", keyed))["deduplicated"]
    refused = await ask(gate, "/tasks", body | {"task_id": "task-behind-3"}, 409)
    assert (refused["code"], refused["depends_on"]) == ("dependency_failed", [first["task_id"]])


async def test_what_is_not_the_callers_cannot_be_waited_for(gate: Gateway) -> None:
    first = await ask(gate, "/tasks", {"task_type": "text-to-image", "params": {"prompt": "a fox"}})
    body = GOOD | {"task_id": "task-behind-4"}
    stranger = gate.headers(await gate.another_user())
    for depends_on in (first["task_id"], "task-of-nobody"):
        answer = await gate.post("/tasks", json=body | {"depends_on": [depends_on]}, headers=stranger)
        assert (answer.status_code, answer.json()["code"]) == (404, "dependency_not_found")
    assert await gate.db.fetchval("select count(*) from makeit3d.tasks") == 1


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"a": found}
    return found


GOOD = {"task_type": "text-to-image", "task_id": "task-bad-01", "params": {"prompt": "a fox"}}
# what is sent instead, the code of the problem, and the fields that it names
HOSTILE: dict[str, tuple[Any, str, set[str]]] = {
    "no object": ([], "validation_error", {"body"}),
    "nothing": ({}, "validation_error", {"task_type", "params"}),
    "no parameters": (GOOD | {"params": {}}, "validation_error", {"params.prompt"}),
    "parameters that are none": (GOOD | {"params": "a fox"}, "validation_error", {"params"}),
    "a list of parameters": (GOOD | {"params": [["prompt", "a fox"]]}, "validation_error", {"params"}),
    "no type": (GOOD | {"task_type": None}, "validation_error", {"task_type"}),
    "a number for a type": (GOOD | {"task_type": 7}, "validation_error", {"task_type"}),
    "a type that is not there": (GOOD | {"task_type": "text-to-video"}, "unknown_task_type", set()),
    "a type with a path": (GOOD | {"task_type": "../text-to-image"}, "unknown_task_type", set()),
    "a type of zeros": (GOOD | {"task_type": "\x00"}, "unknown_task_type", set()),
    "a long type": (GOOD | {"task_type": "x" * 65}, "validation_error", {"task_type"}),
    "an unknown field beside": (GOOD | {"priority": 100}, "validation_error", {"priority"}),
    "an unknown parameter": (GOOD | {"params": {"prompt": "a", "seed": 1}}, "validation_error", {"params.seed"}),
    "a parameter of another type": (
        GOOD | {"params": {"prompt": "a fox", "face_limit": 100}},
        "validation_error",
        {"params.face_limit"},
    ),
    "a wrong kind": (GOOD | {"params": {"prompt": 7, "n": "2"}}, "validation_error", {"params.prompt", "params.n"}),
    "two names of the type": (GOOD | {"type": "text-to-image"}, "validation_error", {"type"}),
    "three names of the type": (
        {"family": "text-to-image", "type": "text-to-image", "params": {"prompt": "a"}},
        "validation_error",
        {"family"},
    ),
    "two names of the parameters": (GOOD | {"input": {"prompt": "a fox"}}, "validation_error", {"input"}),
    "two names of a draft": (
        GOOD | {"task_type": "refine-model", "params": {"tripo_draft_task_id": "a", "draft_model_task_id": "a"}},
        "validation_error",
        {"params.draft_model_task_id"},
    ),
    "two tasks": (
        GOOD | {"params": {"prompt": "a fox", "task_id": "task-other-1"}},
        "validation_error",
        {"params.task_id"},
    ),
    "a bad task": (GOOD | {"task_id": "../.."}, "validation_error", {"task_id"}),
    "a bad task inside": (
        {"task_type": "text-to-image", "params": {"prompt": "a fox", "task_id": 7}},
        "validation_error",
        {"params.task_id"},
    ),
    "a bad key": (GOOD | {"idempotency_key": "two words"}, "validation_error", {"idempotency_key"}),
    "itself before it": (GOOD | {"depends_on": ["task-bad-01"]}, "validation_error", {"depends_on"}),
    "a bad task before it": (GOOD | {"depends_on": ["../.."]}, "validation_error", {"depends_on.0"}),
    "many tasks before it": (GOOD | {"depends_on": ["task-good-1"] * 101}, "validation_error", {"depends_on"}),
    "a number before it": (GOOD | {"depends_on": 7}, "validation_error", {"depends_on"}),
    "two names of what is before": (
        GOOD | {"depends_on": [], "dependant_on": []},
        "validation_error",
        {"dependant_on"},
    ),
    "no time": (GOOD | {"expires_in": 0}, "validation_error", {"expires_in"}),
    "half a second": (GOOD | {"expires_in": 0.5}, "validation_error", {"expires_in"}),
    "all the time": (GOOD | {"expires_in": 10**12}, "validation_error", {"expires_in"}),
    "conditions inside": (
        GOOD | {"params": {"prompt": "a fox", "depends_on": ["task-good-1"]}},
        "validation_error",
        {"params.depends_on"},
    ),
    "many parameters": (GOOD | {"params": {f"k{n}": n for n in range(50_000)}}, "validation_error", {"params"}),
    "many fields": (GOOD | {f"k{n}": n for n in range(50_000)}, "validation_error", {"body"}),
    "a huge prompt": (GOOD | {"params": {"prompt": "x" * 500_000}}, "validation_error", {"params.prompt"}),
    "deep parameters": (GOOD | {"params": nested(500)}, "validation_error", {"params.prompt", "params.a"}),
    "a deep prompt": (GOOD | {"params": {"prompt": nested(500)}}, "validation_error", {"params.prompt"}),
    "a long name": (GOOD | {"params": {"k" * 500_000: 1}}, "validation_error", set()),
}


async def test_hostile_bodies_get_problems(gate: Gateway) -> None:
    for label, (body, code, fields) in HOSTILE.items():
        answer = await gate.post("/tasks", json=body)
        assert answer.headers["content-type"] == "application/problem+json", label
        assert (answer.status_code, answer.json()["code"]) == (422, code), (label, answer.text[:300])
        assert fields <= {fault["field"] for fault in answer.json().get("errors", ())}, (label, answer.text[:300])
        assert len(answer.content) < 20_000, label
    assert await gate.db.fetchval("select count(*) from makeit3d.requests") == 0


async def test_another_key_in_the_body_than_in_the_header_is_refused(gate: Gateway) -> None:
    body = GOOD | {"idempotency_key": "one"}
    refused = await ask(gate, "/tasks", body, 422, key="two")
    assert [fault["field"] for fault in refused["errors"]] == ["idempotency_key"]
    await ask(gate, "/tasks", body, key='"one"')


async def test_an_unknown_type_is_told_the_known_ones(gate: Gateway) -> None:
    refused = await ask(gate, "/tasks", GOOD | {"task_type": "text-to-video"}, 422)
    assert refused["task_types"] == [*TYPES, "obelisk"]
    assert "text-to-image, image-to-image" in refused["detail"]


async def test_types_are_described_and_not_sent_again(gate: Gateway) -> None:
    answer = await gate.get("/task-types")
    listed = answer.json()["task_types"]
    assert [found["name"] for found in listed] == [*TYPES, "obelisk"]
    assert (await gate.get("/task-types", headers={"If-None-Match": answer.headers["etag"]})).status_code == 304
    for found in listed:
        for name in (found["name"], *found["aliases"]):
            assert (await gate.get(f"/task-types/{name}")).json() == found
        one = await gate.get(f"/task-types/{found['name']}")
        same = await gate.get(one.url.path, headers={"If-None-Match": f'W/{one.headers["etag"]}, "x"'})
        assert (same.status_code, same.content) == (304, b"")
        # what the schema says is enough to write a request
        assert found["params"]["additionalProperties"] is False
        assert set(found["params"].get("required", ())) <= found["params"]["example"].keys()
        assert [estimate["default"] for estimate in found["estimates"]].count(True) == 1
        assert all(estimate["micros"] > 0 for estimate in found["estimates"])
    unknown = await gate.get("/task-types/text-to-video")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert (await gate.http.get("/task-types")).status_code == 401


async def test_a_type_of_two_steps_that_the_product_does_not_know(gate: Gateway) -> None:
    """One file and one line in a registry: its route, the common door, the document and the rows are there."""
    task = f"task-{uuid4()}"
    made = await ask(gate, "/generate/obelisk", {"task_id": task, "prompt": "a fox", "surface": "carved"})
    steps = await gate.db.fetch(
        "select id, step, type, waiting_for from makeit3d.jobs where task_id = $1 order by step", task
    )
    assert [(row["step"], row["type"], row["waiting_for"]) for row in steps] == [
        (1, "generate_images", None),
        (2, "polish_pebbles", "step"),
    ]
    assert made["job_id"] == str(steps[1]["id"])
    concept = await gate.db.fetchval("select id from public.concept_images where task_id = $1", task)
    assert (
        await gate.db.fetchval("select source_concept_image_id from public.videos where task_id = $1", task) == concept
    )
    status = (await gate.get(f"/tasks/{task}/status")).json()
    assert status["result"] == {"image_urls": [], "model_url": None, "video_url": None}
    repeat = {"task_type": "monolith", "task_id": task, "params": {"surface": "carved", "prompt": "a fox"}}
    assert await ask(gate, "/tasks", repeat) == made | {"deduplicated": True}
    assert (await gate.get("/openapi.json")).json()["components"]["schemas"]["Obelisk"]["properties"]["surface"]
    fields = (await gate.get("/openapi.json")).json()["components"]["schemas"]["Result"]["properties"]
    assert list(fields) == ["image_urls", "model_url", "video_url"]


async def test_a_request_keeps_what_was_set_and_no_link_that_opens_anything(gate: Gateway) -> None:
    sent = with_links(gate, TYPES["image-to-model"], "a-secret-token") | {"style": None, "prompt": " oak "}
    task = f"task-{uuid4()}"
    await ask(gate, "/tasks", {"task_type": "image-to-model", "task_id": task, "params": sent})
    kept = await gate.db.fetchval("select params from makeit3d.requests where task_id = $1", task)
    link = f"{gate.services.settings.supabase_url}/storage/v1/object/authenticated/{INPUTS}/{gate.user_id}/a.png"
    assert kept == {"texture": False, "prompt": "oak", "input_image_asset_urls": [link, link]}
    # it is a good request of the type again, and the same one
    assert (await ask(gate, "/tasks", {"task_type": "image-to-model", "task_id": task, "params": kept}))["deduplicated"]
