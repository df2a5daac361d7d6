"""Typed parameters of the job types, as they lie in ``jobs.params``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from app.domain.operations import ModelOptions, View


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object in a bucket of ours, checked to be the user's when the request was accepted.

    ``etag`` and ``size`` say which version of it was checked; the owner may store another under the same key.
    """

    bucket: str
    key: str
    etag: str | None = None
    size: int | None = None

    def is_version(self, etag: str | None, size: int) -> bool:
        """Whether an object with this etag and size may be the one that was checked."""
        same_size = self.size is None or self.size == size
        return same_size and (self.etag is None or etag is None or _opaque(self.etag) == _opaque(etag))


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The first output of an earlier step of the same request."""

    step: int


Source = ObjectRef | StepOutput


@dataclass(frozen=True, slots=True)
class ImageJob:
    """Parameters of ``generate_images``."""

    prompt: str
    n: int
    size: str | None = None
    quality: str | None = None
    background: str | None = None
    output_format: str | None = None
    inputs: tuple[ObjectRef, ...] = ()
    sketch: bool = False
    safety_identifier: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ImageJob:
        plain = {name: item for name, item in value.items() if name != "inputs"}
        return cls(**plain, inputs=tuple(ObjectRef(**ref) for ref in value["inputs"]))


@dataclass(frozen=True, slots=True)
class ModelJob:
    """Parameters of ``generate_model``, ``render_sketch`` and ``refine_model``."""

    prompt: str
    views: Mapping[View, Source] = field(default_factory=dict[View, Source])
    source_task_id: str | None = None  # a provider task of the user's own journal
    source_step: int | None = None  # the provider task that an earlier step made
    model: ObjectRef | None = None
    options: ModelOptions = field(default_factory=ModelOptions)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelJob:
        return cls(
            prompt=value["prompt"],
            views={cast("View", view): _source(source) for view, source in value["views"].items()},
            source_task_id=value["source_task_id"],
            source_step=value["source_step"],
            model=None if value["model"] is None else ObjectRef(**value["model"]),
            options=ModelOptions(**value["options"]),
        )


def _source(value: Mapping[str, Any]) -> Source:
    return StepOutput(**value) if "step" in value else ObjectRef(**value)


def _opaque(etag: str) -> str:
    """A proxy in front of Storage may mark the etag as weak."""
    return etag.removeprefix("W/")
