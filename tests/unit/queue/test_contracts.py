"""Kinds of assets are declared once and fit each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from app.domain.jobs import AssetKind as JobAssetKind
from app.domain.storage_keys import output_key
from app.outputs.kinds import CONCEPT, KINDS, MODEL, REFINED_MODEL
from app.queue.contracts import AssetKind, AssetKinds, StepPlan

VIDEO = replace(
    CONCEPT,
    name="video",
    table="videos",
    columns=frozenset({"width", "height"}),
    key_template="videos/{task_id}/video{_number}.{extension}",
    result_field="video_url",
    media_types=frozenset({"video/mp4"}),
    many=False,
)


@pytest.mark.parametrize("number", [0, 1, 12])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_names_its_files_as_the_contract_says(kind: AssetKind, number: int) -> None:
    assert kind.key("task-1234", number, "png") == output_key(JobAssetKind(kind.name), "task-1234", number, "png")


def test_kinds_that_share_a_table_are_told_apart() -> None:
    kinds = AssetKinds([*KINDS, VIDEO])
    assert kinds.tables == ("concept_images", "models", "videos")
    assert kinds.of_table("models") == (MODEL, REFINED_MODEL)
    with pytest.raises(ValueError, match="of which kind"):
        AssetKinds([VIDEO, replace(VIDEO, name="clip")])
    with pytest.raises(ValueError, match="same columns"):
        AssetKinds([MODEL, replace(MODEL, name="toy", columns=frozenset({"kind"}))])


def test_a_kind_that_no_statement_can_be_made_of_is_refused() -> None:
    for name in ("two words", "", "Video", "x; drop table jobs"):
        with pytest.raises(ValueError, match="plain identifiers"):
            replace(VIDEO, name=name)
        with pytest.raises(ValueError, match="plain identifiers"):
            replace(VIDEO, table=name)
    with pytest.raises(ValueError, match="fps"):
        replace(VIDEO, columns=frozenset({"fps"}))


def test_a_step_survives_its_row() -> None:
    step = StepPlan(2, "generate_model", "tripo_h", "normal", 50, "tripo", {"n": 1}, 40_000, ("credits",), {"unit": 5})
    assert StepPlan.from_json(step.as_json()) == step
