"""Typed parameters of the job types, as they lie in ``jobs.params``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

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


def _opaque(etag: str) -> str:
    """A proxy in front of Storage may mark the etag as weak."""
    return etag.removeprefix("W/")
