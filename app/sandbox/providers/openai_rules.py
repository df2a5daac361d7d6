"""What OpenAI Images accepts, and how it refuses. As strict as the original."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from starlette.responses import JSONResponse, Response

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
_COMMON = {
    *("prompt", "model", "n", "size", "quality", "background", "output_format", "output_compression"),
    *("complexity", "stream", "partial_images", "safety_identifier"),
}
_FIELDS = {"generation": _COMMON | {"moderation"}, "edit": _COMMON}
_CHOICES = {
    "background": ("auto", "opaque", "transparent"),
    "output_format": ("png", "jpeg", "webp"),
    "moderation": ("auto", "low"),
    "complexity": ("low", "medium", "high"),
}
_QUALITIES = ("auto", "low", "medium", "high")
_NEW_QUALITIES = (*_QUALITIES, "xhigh", "max")
_SIZE = re.compile(r"^(\d{2,4})x(\d{2,4})$")
_PROMPT_LIMIT = 32_000
_MAX_IMAGES = 16
_MAX_IMAGE_BYTES = 50 * 1024 * 1024
_MAX_MASK_BYTES = 4 * 1024 * 1024
_LOW_TOKENS = {"low": 16, "medium": 48, "high": 96}
_NEW_TOKENS = {"low": 16, "medium": 24, "high": 48, "xhigh": 64, "max": 96}


@dataclass
class OpenAIRefusal(Exception):
    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def response(self) -> Response:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code, **self.extra}
        return JSONResponse({"error": error}, self.status, self.headers)


def refuse(code: str, message: str, param: str | None) -> OpenAIRefusal:
    return OpenAIRefusal(400, "invalid_request_error", code, message, param)


@dataclass(frozen=True, slots=True)
class ImageOrder:
    """A validated request."""

    kind: str
    prompt: str
    model: str
    n: int
    size: tuple[int, int] | None
    quality: str
    background: str
    output_format: str
    stream: bool
    partial_images: int

    @property
    def output_tokens(self) -> int:
        """The tokens of all n images, by the formula behind the vendor's calculator."""
        table = _LOW_TOKENS if self.model.startswith("gpt-image-2-") or self.model == "gpt-image-2" else _NEW_TOKENS
        base = table.get(self.quality, table["high"])
        width, height = self.size or (1024, 1024)
        short = round(base * min(width, height) / max(width, height))
        area = base * short * (2_000_000 + width * height)
        return -(-area // 4_000_000) * self.n


def read_order(kind: str, fields: dict[str, Any]) -> ImageOrder:
    """Check the fields of a request. Raises OpenAIRefusal."""
    model = fields.get("model")
    for name in fields:
        if name not in _FIELDS[kind]:
            raise refuse("unknown_parameter", f"Unknown parameter: '{name}'.", name)
    if model not in MODELS:
        message = f"The model '{model}' does not exist or you do not have access to it."
        raise OpenAIRefusal(404, "invalid_request_error", "model_not_found", message, "model")
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not 1 <= len(prompt) <= _PROMPT_LIMIT:
        raise refuse("invalid_value", "Invalid 'prompt': expected 1 to 32000 characters.", "prompt")
    for name, choices in _CHOICES.items():
        if name in fields and fields[name] not in choices:
            raise refuse("invalid_value", f"Invalid value for '{name}'.", name)
    old = model.startswith("gpt-image-2-") or model == "gpt-image-2"
    quality = fields.get("quality", "auto")
    if quality not in (_QUALITIES if old else _NEW_QUALITIES):
        raise refuse("invalid_value", "Invalid value for 'quality'.", "quality")
    output_format = fields.get("output_format", "png")
    background = fields.get("background", "auto")
    if background == "transparent" and output_format == "jpeg":
        raise refuse("invalid_value", "Transparent background needs png or webp.", "background")
    return ImageOrder(
        kind=kind,
        prompt=prompt,
        model=model,
        n=_whole(fields, "n", 1, 1, 10),
        size=_size(str(fields.get("size", "auto"))),
        quality=quality,
        background=background,
        output_format=output_format,
        stream=str(fields.get("stream", "false")).lower() == "true",
        partial_images=_whole(fields, "partial_images", 0, 0, 3),
    )


def check_images(images: list[tuple[bytes, str]]) -> None:
    """Number, size and declared type of the files of an edit. Raises OpenAIRefusal."""
    if not images:
        raise refuse("missing_required_parameter", "Missing required parameter: 'image'.", "image")
    if len(images) > _MAX_IMAGES:
        raise refuse("invalid_value", f"At most {_MAX_IMAGES} images are allowed.", "image")
    for index, (data, content_type) in enumerate(images):
        if content_type not in ("image/png", "image/jpeg", "image/webp"):
            message = f"Invalid file 'image': unsupported mimetype ('{content_type}')."
            raise refuse("unsupported_file_mimetype", message, f"image[{index}]")
        if len(data) > _MAX_IMAGE_BYTES:
            raise OpenAIRefusal(413, "invalid_request_error", None, "File too large.", f"image[{index}]")


def check_mask(mask: bytes, picture: Image.Image, drawn: Image.Image) -> None:
    if len(mask) >= _MAX_MASK_BYTES or drawn.format != "PNG" or drawn.size != picture.size:
        raise refuse(
            "invalid_image_file", "Invalid mask: a PNG under 4 MB of the first image's size is needed.", "mask"
        )


def _whole(fields: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    try:
        value = int(fields.get(name, default))
    except (TypeError, ValueError):
        raise refuse("invalid_type", f"Invalid type for '{name}': expected an integer.", name) from None
    if not low <= value <= high:
        raise refuse("invalid_value", f"Invalid '{name}': expected {low} to {high}.", name)
    return value


def _size(text: str) -> tuple[int, int] | None:
    if text == "auto":
        return None
    match = _SIZE.match(text)
    if match is None:
        raise refuse("invalid_value", "Invalid value for 'size'.", "size")
    width, height = int(match[1]), int(match[2])
    ratio = width / height if height else 0
    good = (
        width % 16 == 0
        and height % 16 == 0
        and 1 / 3 <= ratio <= 3
        and max(width, height) <= 3840
        and 655_360 <= width * height <= 8_294_400
    )
    if not good:
        raise refuse("invalid_value", "Invalid value for 'size'.", "size")
    return width, height
