"""What the types that make concept images share."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.params import ImageJob, ObjectRef
from app.outputs.kinds import CONCEPT
from app.task_types import fields
from app.task_types.groups import ImageOptions, Provided, Worded
from app.task_types.steps import Planning, Step


class ConceptParams(ImageOptions, Provided, Worded):
    """Concept images of what a prompt says."""

    prompt: fields.Prompt


def concept_step(params: ConceptParams, pictures: Sequence[ObjectRef], planning: Planning) -> Step:
    """All images by one call."""
    job = ImageJob(
        params.text(),
        params.n,
        size=params.size,
        quality=params.quality,
        background=params.background,
        output_format=params.output_format,
        inputs=tuple(pictures),
    )
    outputs = [params.output(CONCEPT) for _ in range(params.n)]
    return planning.images(job, *outputs, provider=params.provider)
