"""What a client asks for, parsed and typed: the input of the generation use case."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field

import orjson

from app.domain.operations import ModelOptions, Operation


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

    def body_hash(self) -> str:
        """Identifies the operation and its validated body with defaults, whatever way the client spelled it."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()
