"""Kinds of assets are declared once and fit each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from app.domain.sniff import MediaType
from app.outputs.kinds import CONCEPT, KINDS, MODEL, REFINED_MODEL
from app.queue.contracts import AssetKinds, StepPlan

MP4 = MediaType("video/mp4", "mp4", lambda head: head[4:8] == b"ftyp")
VIDEO = replace(
    CONCEPT,
    name="video",
    table="videos",
    columns=frozenset({"width", "height"}),
    key_template="videos/{task_id}/video{_number}.{extension}",
    result_field="video_url",
    media_types=(MP4,),
    many=False,
    names_as=None,
)


def test_what_a_file_of_a_kind_may_be() -> None:
    assert VIDEO.extension_of("video/mp4") == "mp4"
    assert VIDEO.sniff(b"\0\0\0\x18ftypisom") == "video/mp4"
    assert VIDEO.sniff(b"\x89PNG\r\n\x1a\n") is None
    assert CONCEPT.sniff(b"\x89PNG\r\n\x1a\n") == "image/png"
    with pytest.raises(ValueError, match="image/png"):
        VIDEO.extension_of("image/png")


def test_fields_of_results_and_folders_are_those_of_the_kinds() -> None:
    kinds = AssetKinds([*KINDS, VIDEO])
    assert kinds.result_fields == {"image_urls": True, "model_url": False, "video_url": False}
    assert kinds.folders == ("concepts", "models", "videos")
    with pytest.raises(ValueError, match="image_urls"):
        AssetKinds([*KINDS, replace(VIDEO, result_field="image_urls")])


def test_kinds_do_not_meet() -> None:
    with pytest.raises(ValueError, match="two kinds"):
        AssetKinds([VIDEO, VIDEO])
    with pytest.raises(ValueError, match="share their keys"):
        AssetKinds([CONCEPT, replace(VIDEO, key_template=CONCEPT.key_template)])
    for template in (
        "projects/{task_id}/{number}.{extension}",
        "{task_id}/{number}.{extension}",
        "videos/{task_id}/video.{extension}",
        "videos/{task_id}/{number}.mp4",
        "../{task_id}/{number}.{extension}",
    ):
        with pytest.raises(ValueError, match="no keys of its own"):
            replace(VIDEO, key_template=template)
    for name in ("input", "preview"):
        with pytest.raises(ValueError, match="no outputs"):
            replace(VIDEO, name=name)
    with pytest.raises(ValueError, match="names its source"):
        replace(VIDEO, names_as="source_video_id")


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
    step = StepPlan(
        step=2,
        type="generate_model",
        pool="tripo_h",
        lane="normal",
        priority=50,
        provider="tripo",
        params={"n": 1},
        estimate_micros=40_000,
        participants=("credits",),
        price={"unit": 5},
        permit="gpu",
        items_from=1,
        items_per_job=7,
    )
    assert StepPlan.from_json(step.as_json()) == step
