"""What OpenAI Images accepts, and how it refuses. As strict as the original."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from starlette.responses import JSONResponse, Response

from app.sandbox.providers.openai_prices import is_first_generation

MODELS = (
    "gpt-image-2",
    "gpt-image-2-2026-04-21",
    "gpt-image-2.5-flare",
    "gpt-image-2.5-flare-2026-09-08",
    "gpt-image-2.5-sunburst",
    "gpt-image-2.5-sunburst-2026-09-08",
    "gpt-image-2.6-flare",
    "gpt-image-2.6-sunburst",
)
"""Models that go within days of this state of knowledge (gpt-image-1.5 and its kin) are not offered."""

STANDARD_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))

_COMMON = frozenset(
    {
        *("prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression"),
        *("complexity", "stream", "partial_images", "safety_identifier", "user"),
    }
)
_FIELDS: Mapping[str, frozenset[str]] = {"generation": _COMMON | {"moderation"}, "edit": _COMMON}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "background": ("auto", "opaque", "transparent"),
    "output_format": ("png", "jpeg", "webp"),
    "moderation": ("auto", "low"),
    "complexity": ("low", "medium", "high"),
}
_QUALITIES = ("auto", "low", "medium", "high")
_LATER_QUALITIES = (*_QUALITIES, "xhigh", "max")
_SIZE = re.compile(r"^(\d{2,4})x(\d{2,4})$")
_PROMPT_LIMIT = 32_000
_MAX_IMAGES = 16
_MAX_IMAGE_BYTES = 50 * 1024 * 1024
_MAX_MASK_BYTES = 4 * 1024 * 1024
_MAX_PIXELS = 100_000_000


@dataclass
class OpenAIRefusal(Exception):
    """A refusal, and its answer in OpenAI's form."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def error(self) -> dict[str, Any]:
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code, **self.extra}

    def response(self) -> Response:
        return JSONResponse({"error": self.error}, self.status, self.headers)


def refuse(code: str, message: str, param: str | None) -> OpenAIRefusal:
    return OpenAIRefusal(400, "invalid_request_error", code, message, param)


def no_such_model(name: object) -> OpenAIRefusal:
    message = f"The model '{name}' does not exist or you do not have access to it."
    return OpenAIRefusal(404, "invalid_request_error", "model_not_found", message, "model")


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """A validated request. ``size`` and ``quality`` are None for ``auto``."""

    kind: str
    prompt: str
    model: str
    n: int
    size: tuple[int, int] | None
    quality: str | None
    background: str
    output_format: str
    output_compression: int
    stream: bool
    partial_images: int


def read_order(kind: str, fields: Mapping[str, Any], *, from_form: bool) -> ImageOrder:
    """Check the fields of a ``generation`` (JSON) or ``edit`` (multipart, where numbers are text).

    Raises OpenAIRefusal.
    """
    given = _known(kind, fields)
    model, prompt = given["model"], given["prompt"]
    quality = _choice(given, "quality", _QUALITIES if is_first_generation(model) else _LATER_QUALITIES, default="auto")
    output_format = _text(given, "output_format", "png")
    background = _text(given, "background", "auto")
    if background == "transparent" and output_format == "jpeg":
        message = "Transparent background is not supported for output format 'jpeg'."
        raise refuse("invalid_value", message, "background")
    compression = _whole(given, "output_compression", 100, 0, 100, from_form=from_form)
    if compression != 100 and output_format == "png":
        message = "Invalid 'output_compression': only jpeg and webp are compressed."
        raise refuse("invalid_value", message, "output_compression")
    return ImageOrder(
        kind=kind,
        prompt=prompt,
        model=model,
        n=_whole(given, "n", 1, 1, 10, from_form=from_form),
        size=_size(_text(given, "size", "auto")),
        quality=None if quality == "auto" else quality,
        background=background,
        output_format=output_format,
        output_compression=compression,
        stream=_flag(given, "stream", from_form=from_form),
        partial_images=_whole(given, "partial_images", 0, 0, 3, from_form=from_form),
    )


def _known(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were set, with a good model, a good prompt and nothing unknown."""
    for name in fields:
        if name not in _FIELDS[kind]:
            raise refuse("unknown_parameter", f"Unknown parameter: '{name}'.", name)
    given = {name: value for name, value in fields.items() if value is not None}
    for name in ("prompt", "model"):
        if name not in given:
            raise refuse("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
    if _text(given, "model", "") not in MODELS:
        raise no_such_model(given["model"])
    if not 1 <= len(_text(given, "prompt", "")) <= _PROMPT_LIMIT:
        raise refuse("invalid_value", f"Invalid 'prompt': expected 1 to {_PROMPT_LIMIT} characters.", "prompt")
    for name, choices in _CHOICES.items():
        if name in given:
            _choice(given, name, choices)
    for name in ("safety_identifier", "user"):
        _text(given, name, "")
    return given


def check_images(images: list[tuple[int, str]]) -> None:
    """Number, size in bytes and declared type of the files of an edit. Raises OpenAIRefusal."""
    if not images:
        raise refuse("missing_required_parameter", "Missing required parameter: 'image'.", "image")
    if len(images) > _MAX_IMAGES:
        raise refuse("invalid_value", f"Invalid 'image': at most {_MAX_IMAGES} images are allowed.", "image")
    for index, (size, content_type) in enumerate(images):
        param = f"image[{index}]"
        if content_type.partition(";")[0].strip() not in ("image/png", "image/jpeg", "image/webp"):
            message = (
                f"Invalid file '{param}': unsupported mimetype ('{content_type}')."
                " Supported file formats are 'image/jpeg', 'image/png', and 'image/webp'."
            )
            raise refuse("unsupported_file_mimetype", message, param)
        if size >= _MAX_IMAGE_BYTES:
            raise OpenAIRefusal(413, "invalid_request_error", None, "File too large: the limit is 50 MB.", param)


def check_pixels(image: Image.Image, param: str) -> None:
    if image.width * image.height > _MAX_PIXELS:
        raise refuse("invalid_image_file", "Invalid image file: too many pixels.", param)


def check_overlay(name: str, data: bytes, overlay: Image.Image, picture: Image.Image) -> None:
    """A mask or a markup lies over the first image. Raises OpenAIRefusal."""
    if len(data) >= _MAX_MASK_BYTES or overlay.format != "PNG":
        raise refuse("invalid_image_file", f"Invalid {name}: a PNG of less than 4 MB is needed.", name)
    if overlay.size != picture.size:
        raise refuse("invalid_image_file", f"Invalid {name}: it must have the same size as the first image.", name)
    if not overlay.has_transparency_data:
        raise refuse("invalid_image_file", f"Invalid {name}: it has no transparent pixels.", name)


def check_markup(order: ImageOrder, *, masked: bool) -> None:
    if is_first_generation(order.model):
        raise refuse("unknown_parameter", f"Unknown parameter: 'markup' for model '{order.model}'.", "markup")
    if masked:
        raise refuse("invalid_value", "Invalid 'markup': it cannot be combined with 'mask'.", "markup")


def _text(fields: Mapping[str, Any], name: str, default: str) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise _wrong_type(name, "a string")
    return value


def _choice(fields: Mapping[str, Any], name: str, choices: tuple[str, ...], *, default: str = "") -> str:
    value = _text(fields, name, default)
    if value not in choices:
        supported = ", ".join(f"'{choice}'" for choice in choices)
        raise refuse("invalid_value", f"Invalid value: '{value}'. Supported values are: {supported}.", name)
    return value


def _whole(fields: Mapping[str, Any], name: str, default: int, low: int, high: int, *, from_form: bool) -> int:
    value = fields.get(name, default)
    if from_form and isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, "an integer")
    if not low <= value <= high:
        raise refuse("invalid_value", f"Invalid '{name}': expected a value between {low} and {high}.", name)
    return value


def _flag(fields: Mapping[str, Any], name: str, *, from_form: bool) -> bool:
    value = fields.get(name, False)
    if from_form and isinstance(value, str) and value.lower() in ("true", "false"):
        value = value.lower() == "true"
    if not isinstance(value, bool):
        raise _wrong_type(name, "a boolean")
    return value


def _wrong_type(name: str, wanted: str) -> OpenAIRefusal:
    return refuse("invalid_type", f"Invalid type for '{name}': expected {wanted}.", name)


def _size(text: str) -> tuple[int, int] | None:
    if text == "auto":
        return None
    match = _SIZE.match(text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    good = (
        min(width, height) > 0
        and width % 16 == 0
        and height % 16 == 0
        and max(width, height) <= 3 * min(width, height)
        and max(width, height) <= 3840
        and 655_360 <= width * height <= 8_294_400
    )
    if not good:
        raise refuse("invalid_value", f"Invalid value: '{text}' for 'size'.", "size")
    return width, height
