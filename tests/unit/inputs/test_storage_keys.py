from __future__ import annotations

import re
from uuid import UUID

import pytest
from app.domain.asset_kinds import AssetKind
from app.domain.storage_keys import Owner, input_key, output_key, preview_key, thumbnail_key, trash_key
from app.outputs.kinds import CONCEPT, KINDS, MODEL, REFINED_MODEL
from hypothesis import given
from hypothesis import strategies as st

A, B = UUID(int=1), UUID(int=2)
TASK = "task-0001"


@pytest.mark.parametrize(
    ("kind", "number", "extension", "expected"),
    [
        (CONCEPT, 0, "png", "concepts/task-0001/0.png"),
        (CONCEPT, 12, "webp", "concepts/task-0001/12.webp"),
        (MODEL, 0, "glb", "models/task-0001/model.glb"),
        (MODEL, 1, "glb", "models/task-0001/model_1.glb"),
        (REFINED_MODEL, 0, "glb", "models/task-0001/refined_model.glb"),
        (REFINED_MODEL, 3, "glb", "models/task-0001/refined_model_3.glb"),
    ],
)
def test_layout(kind: AssetKind, number: int, extension: str, expected: str) -> None:
    assert output_key(kind, TASK, number, extension) == expected
    assert output_key(kind, TASK, number, extension, Owner()) == expected
    assert output_key(kind, TASK, number, extension, Owner(A)) == f"projects/{A}/tasks/{TASK}/{expected}"
    assert output_key(kind, TASK, number, extension, Owner(None, B)) == f"spaces/{B}/tasks/{TASK}/{expected}"
    # a project's rows carry the project's space too
    assert output_key(kind, TASK, number, extension, Owner(A, B)) == f"projects/{A}/tasks/{TASK}/{expected}"


def test_inputs_derivatives_and_trash() -> None:
    key = input_key(A, B, "jpg")
    assert key == f"{A}/{B}.jpg"
    assert thumbnail_key(key) == f"{A}/{B}.thumb.webp"
    assert preview_key("models/task-0001/model_1.glb") == "models/task-0001/model_1.preview.webp"
    assert trash_key(key) == f".trash/{key}"


@pytest.mark.parametrize("key", ["a//b.png", "../b.png", "a/../b.png", "/a.png", "a b/c.png", "ä.png", ""])
def test_no_key_is_made_of_what_is_none(key: str) -> None:
    for make in (trash_key, thumbnail_key, preview_key):
        with pytest.raises(ValueError, match="a part that storage"):
            make(key)


def test_trash_is_not_trashed_again() -> None:
    with pytest.raises(ValueError, match="trash"):
        trash_key(".trash/a/b.png")


def test_numbers_count_from_zero() -> None:
    with pytest.raises(ValueError, match="count"):
        output_key(MODEL, TASK, -1, "glb")


@given(
    kind=st.sampled_from(KINDS),
    task_id=st.from_regex(r"[A-Za-z0-9_-]{8,64}", fullmatch=True),
    numbers=st.lists(st.integers(0, 10_000), unique=True, min_size=2, max_size=4),
)
def test_keys_are_plain_and_distinct(kind: AssetKind, task_id: str, numbers: list[int]) -> None:
    keys = [output_key(kind, task_id, number, "glb") for number in numbers]
    everything = {*keys, *map(thumbnail_key, keys), *map(preview_key, keys), *map(trash_key, keys)}
    assert len(everything) == 4 * len(numbers)
    assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", key) for key in everything)


@given(task_id=st.text(max_size=12), extension=st.text(max_size=6))
def test_whatever_comes_in_no_other_characters_come_out(task_id: str, extension: str) -> None:
    try:
        key = output_key(CONCEPT, task_id, 0, extension)
    except ValueError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._/-]+", key)
    assert not {"", ".", ".."} & set(key.split("/"))
