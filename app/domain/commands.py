"""What a client asks for, parsed and typed: the input of the generation use case."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.domain.operations import ModelOptions, Operation
from app.domain.storage_urls import StorageRef


@dataclass(frozen=True, slots=True)
class GenerateCommand:
    """One ``/generate/*`` request. Fields that an operation does not have keep their defaults."""

    operation: Operation
    task_id: str
    prompt: str = ""
    style: str | None = None
    n: int = 1
    background: str | None = None
    size: str | None = None
    quality: str | None = None
    output_format: str | None = None
    input_image_asset_urls: tuple[str, ...] = ()
    input_sketch_asset_url: str | None = None
    tripo_draft_task_id: str | None = None
    input_model_asset_url: str | None = None
    options: ModelOptions = field(default_factory=ModelOptions)
    provider: str | None = None
    # what the client set of the operation's own body, but for the task and the inputs
    set_fields: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)

    @property
    def input_urls(self) -> dict[str, tuple[str, ...]]:
        """By field; a field without one is left out."""
        sketch, model = self.input_sketch_asset_url, self.input_model_asset_url
        urls = {
            "input_image_asset_urls": self.input_image_asset_urls,
            "input_sketch_asset_url": () if sketch is None else (sketch,),
            "input_model_asset_url": () if model is None else (model,),
        }
        return {name: found for name, found in urls.items() if found}

    def body_hash(self, objects: Mapping[str, StorageRef]) -> str:
        """Identifies the request within its task: a repeat has the same one, whatever way the client spelled it.

        ``objects`` are what the input URLs lead to: two links to one object are one input. A URL without an object,
        which no request was ever accepted with, stands for itself. Nothing else than what was set counts, so that a
        field that is new tomorrow changes no hash of today.
        """
        inputs = {
            name: [[objects[url].bucket, objects[url].key] if url in objects else url for url in urls]
            for name, urls in self.input_urls.items()
        }
        body = {"operation": self.operation.value, "fields": dict(self.set_fields), "inputs": inputs}
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
