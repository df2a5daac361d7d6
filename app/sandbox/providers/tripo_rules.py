"""What Tripo v3 accepts, what it costs, and how it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from starlette.responses import JSONResponse, Response

MODEL_VERSIONS = ("v3.1-20260211", "v3.0-20250812", "v2.5-20250123", "P1-20260311", "P2-20260801")
TEXTURE_VERSIONS = ("v3.5-20260815", "v3.0-20250812", "v2.5-20250123")
_FACES = {
    "v3.1-20260211": (1, 2_000_000),
    "v3.0-20250812": (1, 1_000_000),
    "v2.5-20250123": (1, 500_000),
    "P1-20260311": (50, 20_000),
    "P2-20260801": (50, 50_000),
}
_NOT_WITH_P1 = ("quad", "smart_low_poly", "generate_parts", "geometry_quality")
_UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_INT32 = 2**31


@dataclass
class TripoRefusal(Exception):
    http: int
    code: int
    message: str
    headers: dict[str, str] | None = None

    def response(self) -> Response:
        body = {
            "code": self.code,
            "status": "error",
            "message": self.message,
            "suggestion": "See the documentation.",
            "request_id": f"req_{uuid4().hex}",
        }
        return JSONResponse(body, self.http, self.headers)


def bad_parameter(message: str) -> TripoRefusal:
    return TripoRefusal(400, 1004, message)


def pool_of(kind: str, body: dict[str, Any]) -> str:
    """The concurrency group that a task counts in."""
    match kind:
        case "text-to-model" | "image-to-model" | "multiview-to-model":
            return "p" if str(body.get("model", "")).startswith("P") else "h"
        case "image-to-image" | "text-to-image" | "image-to-multiview":
            return "image"
        case "import":
            return "import"
        case _:
            return "texture"


def check_body(kind: str, body: dict[str, Any]) -> None:
    """Fields of a create call, without its inputs. Raises TripoRefusal."""
    match kind:
        case "text-to-model":
            _check_prompt(body, 1024, required=True)
            _check_model_fields(body)
        case "image-to-model" | "multiview-to-model":
            _check_model_fields(body)
        case "image-to-image":
            _check_prompt(body, 1800, required="template" not in body)
        case "text-to-image":
            _check_prompt(body, 1800, required=True)
        case "texture":
            _check_texture(body)
        case "convert":
            if body.get("format") not in ("GLTF", "FBX", "USDZ", "OBJ", "STL", "3MF", "GLB"):
                raise bad_parameter("format is not supported")
        case _:
            pass


def price_of(kind: str, body: dict[str, Any]) -> Decimal:
    """Credits of a task when it succeeds."""
    textured = body.get("texture", True) or body.get("pbr", True)
    quality = {"detailed": 10, "extreme": 20}.get(str(body.get("texture_quality")), 0) if textured else 0
    version = str(body.get("model", ""))
    match kind:
        case "text-to-model" | "image-to-model" | "multiview-to-model":
            from_text = kind == "text-to-model"
            if version.startswith("P1"):
                base = 30 if from_text else 40
            elif version.startswith("P2"):
                base = 100
            else:
                base = 10 if from_text else 20
            extra = 20 if body.get("geometry_quality") == "detailed" else 0
            extra += 5 if body.get("quad") else 0
            return Decimal(base + (10 if textured else 0) + quality + extra)
        case "texture":
            return Decimal({"detailed": 20, "extreme": 30}.get(str(body.get("texture_quality")), 10))
        case "convert":
            return Decimal(5 if set(body) <= {"input", "format"} else 10)
        case "image-to-image" | "text-to-image":
            return Decimal(5)
        case _:
            return Decimal(0)


def is_task_id(value: str) -> bool:
    return _UUID.match(value) is not None


def _check_prompt(body: dict[str, Any], limit: int, *, required: bool) -> None:
    prompt = body.get("prompt")
    if prompt is None and not required:
        return
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= limit:
        raise bad_parameter(f"prompt needs 1 to {limit} characters")


def _check_model_fields(body: dict[str, Any]) -> None:
    version = body.get("model", body.get("model_version"))
    if version is None:
        raise bad_parameter("model is required")
    if version not in MODEL_VERSIONS:
        raise bad_parameter("model is not a known version")
    if version == "P1-20260311" and any(name in body for name in _NOT_WITH_P1):
        raise bad_parameter("a parameter is not supported by this model")
    faces = body.get("face_limit")
    low, high = _FACES[version]
    if faces is not None and (not isinstance(faces, int) or not low <= faces <= high):
        raise bad_parameter(f"face_limit must lie in {low} to {high}")
    for name in ("model_seed", "texture_seed", "image_seed"):
        _check_seed(body.get(name))
    if body.get("texture_quality", "standard") not in ("standard", "detailed", "extreme", "fast"):
        raise bad_parameter("texture_quality is not known")
    if body.get("orientation", "default") not in ("default", "align_image"):
        raise bad_parameter("orientation is not known")


def _check_texture(body: dict[str, Any]) -> None:
    if body.get("model", "v3.0-20250812") not in TEXTURE_VERSIONS:
        raise bad_parameter("model is not a known texture version")
    prompt = body.get("texture_prompt")
    if prompt is not None:
        chosen = [name for name in ("text", "image", "images") if name in prompt] if isinstance(prompt, dict) else []
        if len(chosen) != 1:
            raise bad_parameter("texture_prompt takes exactly one of text, image, images")
    _check_seed(body.get("texture_seed"))


def _check_seed(seed: object) -> None:
    if seed is not None and (not isinstance(seed, int) or not -_INT32 <= seed < _INT32):
        raise bad_parameter("a seed must be an int32")
