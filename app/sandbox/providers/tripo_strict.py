"""What Tripo v3 accepts in the body of a create. Unknown fields are ignored, as there.

Raises TripoRefusal. What the original offers and the sandbox cannot make (FBX, USDZ, quads) is refused, not faked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from app.sandbox.providers.knobs import PoolName
from app.sandbox.providers.tripo_prices import is_textured
from app.sandbox.providers.tripo_refusals import TripoRefusal, bad_parameter

MODEL_VERSIONS = ("v3.1-20260211", "v3.0-20250812", "v2.5-20250123", "P1-20260311", "P2-20260801")
TEXTURE_VERSIONS = ("v3.5-20260815", "v3.0-20250812", "v2.5-20250123")
PICTURE_MODELS = (
    *("seedream_v5", "banana", "banana_pro", "banana2"),
    *("chat_image_2", "chat_image_2.5_flare", "chat_image_2.5_sunburst"),
)
TEMPLATES = ("t_pose", "3d_enhance", "character_completion", "variants", "figure")
EXPORTS = ("GLTF", "GLB", "OBJ", "STL", "3MF")

_FEWEST_FACES = 40  # of a closed solid from a photo
_FACES: Mapping[str, tuple[int, int]] = {
    "v3.1-20260211": (_FEWEST_FACES, 1_500_000),
    "v3.0-20250812": (_FEWEST_FACES, 1_000_000),
    "v2.5-20250123": (_FEWEST_FACES, 500_000),
    "P1-20260311": (50, 20_000),
    "P2-20260801": (50, 50_000),
}
_DETAILED_FACES = 2_000_000
_LOW_POLY_FACES = (500, 20_000)
_NEVER_WITH_P1 = ("quad", "smart_low_poly", "generate_parts", "geometry_quality")
_FLAGS = (
    *("texture", "pbr", "auto_size", "export_uv", "quad", "smart_low_poly", "generate_parts", "delight", "bake"),
    *("enable_image_autofix", "sketch_to_render", "t_pose", "pivot_to_center_bottom", "with_animation"),
)
_UNOFFERED_EXPORT_OPTIONS = ("face_limit", "quad", "flatten_bottom", "pack_uv", "texture_size", "texture_format")
_INT32 = 2**31


def pool_of(kind: str, body: Mapping[str, Any]) -> PoolName:
    """The concurrency group that a task counts in."""
    match kind:
        case "text-to-model" | "image-to-model" | "multiview-to-model":
            return "p" if str(_version(body)).startswith("P") else "h"
        case "text-to-image" | "image-to-image" | "image-to-multiview" | "edit-multiview":
            return "image"
        case "import":
            return "import"
        case _:
            return "texture"


def check_body(kind: str, body: Mapping[str, Any]) -> None:
    """Fields of a create, its inputs excepted."""
    for name in _FLAGS:
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise bad_parameter(f"{name} must be a boolean")
    for name in ("model_seed", "texture_seed", "image_seed"):
        _check_seed(name, body.get(name))
    match kind:
        case "text-to-model":
            _check_text(body, "prompt", 1024, required=True)
            _check_text(body, "negative_prompt", 255, required=False)
            _check_model_fields(body)
        case "image-to-model" | "multiview-to-model":
            _check_model_fields(body)
            _check_choice(body, "texture_alignment", ("original_image", "geometry"))
            _check_choice(body, "orientation", ("default", "align_image"))
        case "text-to-image" | "image-to-image" | "edit-multiview":
            _check_picture_fields(body, prompted=kind != "image-to-image" or "template" not in body)
        case "texture":
            _check_texture_fields(body)
        case "convert":
            _check_export(body)
        case _:
            pass


def _version(body: Mapping[str, Any]) -> object:
    return body.get("model", body.get("model_version"))


def _check_model_fields(body: Mapping[str, Any]) -> None:
    version = _version(body)
    if version is None:
        raise bad_parameter("model is required")
    if not isinstance(version, str) or version not in MODEL_VERSIONS:
        raise bad_parameter("model is not a known version; write it with its date")
    if version.startswith("P1") and any(name in body for name in _NEVER_WITH_P1):
        raise bad_parameter(f"{', '.join(_NEVER_WITH_P1)} are not supported by this model")
    if body.get("quad"):
        raise bad_parameter("quad answers FBX, which the sandbox does not make")
    if body.get("generate_parts") and is_textured(body):
        raise bad_parameter("generate_parts needs texture and pbr to be false")
    _check_faces(version, body)
    _check_choice(body, "texture_version", TEXTURE_VERSIONS)
    _check_choice(body, "texture_quality", ("standard", "detailed", "extreme", "fast"))
    if body.get("texture_quality") == "fast" and body.get("texture_version") != TEXTURE_VERSIONS[0]:
        raise bad_parameter("texture_quality fast needs texture_version v3.5-20260815")
    _check_choice(body, "compress", ("geometry",))


def _check_faces(version: str, body: Mapping[str, Any]) -> None:
    _check_choice(body, "geometry_quality", ("standard", "detailed"))
    detailed = body.get("geometry_quality") == "detailed"
    if detailed and not version.startswith("v3"):
        raise bad_parameter("geometry_quality is for v3 models")
    low, high = _FACES[version]
    if detailed and version == "v3.1-20260211":
        high = _DETAILED_FACES
    if body.get("smart_low_poly"):
        low, high = _LOW_POLY_FACES
    faces = body.get("face_limit")
    if faces is not None and (not _is_whole(faces) or not low <= faces <= high):
        raise bad_parameter(f"face_limit must lie between {low} and {high}")


def _check_texture_fields(body: Mapping[str, Any]) -> None:
    _check_choice(body, "model", TEXTURE_VERSIONS)
    _check_choice(body, "texture_quality", ("standard", "detailed", "extreme", "fast"))
    if body.get("texture_quality") == "fast" and body.get("model") != TEXTURE_VERSIONS[0]:
        raise bad_parameter("texture_quality fast needs model v3.5-20260815")
    _check_choice(body, "texture_alignment", ("original_image", "geometry"))
    prompt: object = body.get("texture_prompt")
    if prompt is None:
        return
    if not isinstance(prompt, dict):
        raise bad_parameter("texture_prompt must be an object")
    fields = cast("dict[str, Any]", prompt)
    chosen = [name for name in ("text", "image", "images") if fields.get(name)]
    if len(chosen) != 1:
        raise bad_parameter("texture_prompt takes exactly one of text, image, images")
    if chosen == ["text"]:
        _check_text(fields, "text", 1024, required=True)
    elif "style_image" in fields:
        raise bad_parameter("style_image stands only beside text")


def _check_picture_fields(body: Mapping[str, Any], *, prompted: bool) -> None:
    _check_text(body, "prompt", 1800, required=prompted)
    _check_choice(body, "model", PICTURE_MODELS)
    _check_choice(body, "template", TEMPLATES)
    _check_choice(body, "output_format", ("png", "jpeg"))
    size = body.get("size")
    if size is not None and picture_size(size) is None:
        raise bad_parameter("size must be 1K, 2K, 4K or WxH")


def picture_size(size: object) -> tuple[int, int] | None:
    """Pixels of ``1K``, ``2K``, ``4K`` or ``WxH``; None for anything else."""
    named = {"1K": 1024, "2K": 2048, "4K": 4096}
    if isinstance(size, str) and size in named:
        return named[size], named[size]
    width, _, height = str(size).partition("x")
    if width.isdecimal() and height.isdecimal() and 64 <= int(width) <= 4096 and 64 <= int(height) <= 4096:
        return int(width), int(height)
    return None


def _check_export(body: Mapping[str, Any]) -> None:
    if body.get("format") not in EXPORTS:
        raise bad_parameter(f"format must be one of {', '.join(EXPORTS)}; the sandbox makes no FBX and no USDZ")
    for name in _UNOFFERED_EXPORT_OPTIONS:
        if body.get(name) not in (None, False):
            raise bad_parameter(f"{name} is not offered by the sandbox")
    factor = body.get("scale_factor")
    if factor is not None and (not isinstance(factor, int | float) or not 0.0001 <= factor <= 10_000):
        raise bad_parameter("scale_factor must lie between 0.0001 and 10000")


def _check_text(body: Mapping[str, Any], name: str, limit: int, *, required: bool) -> None:
    text = body.get(name)
    if text is None and not required:
        return
    if not isinstance(text, str) or not 1 <= len(text) <= limit:
        raise bad_parameter(f"{name} needs 1 to {limit} characters")
    if "\x00" in text:
        raise TripoRefusal(400, 2009, f"{name} holds characters that are not allowed")


def _check_choice(body: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> None:
    if body.get(name) is not None and body[name] not in choices:
        raise bad_parameter(f"{name} must be one of {', '.join(choices)}")


def _check_seed(name: str, seed: object) -> None:
    if seed is not None and (not _is_whole(seed) or not -_INT32 <= cast("int", seed) < _INT32):
        raise bad_parameter(f"{name} must be an int32")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
