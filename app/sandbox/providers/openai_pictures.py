"""Making the pictures of an order from the real input, on the sandbox's builder threads."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps

from app.sandbox import media
from app.sandbox.providers.openai_strict import (
    STANDARD_SIZES,
    ImageOrder,
    OpenAIRefusal,
    check_overlay,
    check_pixels,
    refuse,
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Decoded pictures of an edit; none for a generation."""

    photo: Image.Image | None = None
    mask: Image.Image | None = None
    others: int = 0
    """A hash of all further pictures, which vary the result."""
    sizes: tuple[tuple[int, int], ...] = ()

    def size_for(self, order: ImageOrder) -> tuple[int, int]:
        """What was asked for, or for ``auto`` the standard size nearest to the photo's shape."""
        if order.size is not None:
            return order.size
        if self.photo is None:
            return STANDARD_SIZES[0]
        width, height = self.photo.size
        square, landscape, portrait = STANDARD_SIZES
        if 0.8 <= width / height <= 1.25:
            return square
        return landscape if width > height else portrait


def decode_inputs(images: list[tuple[bytes, str]], mask: bytes | None, markup: bytes | None) -> Inputs:
    """Raises OpenAIRefusal for what is no picture or does not fit the first one."""
    pictures = [_open(data, f"image[{index}]") for index, (data, _) in enumerate(images)]
    photo = pictures[0]
    sizes = [picture.size for picture in pictures]
    drawn = None
    if mask is not None:
        drawn = _open(mask, "mask")
        check_overlay("mask", mask, drawn, photo)
        sizes.append(drawn.size)
    if markup is not None:
        marks = _open(markup, "markup")
        check_overlay("markup", markup, marks, photo)
        photo = Image.alpha_composite(photo.convert("RGBA"), marks.convert("RGBA"))
    others = 0
    for data, _ in images[1:]:
        others = zlib.crc32(data, others)
    return Inputs(photo, drawn, others, tuple(sizes))


def draw(order: ImageOrder, inputs: Inputs, size: tuple[int, int], seed: int) -> bytes:
    """One picture in the order's format."""
    photo = inputs.photo
    if photo is None:
        picture = media.paint_prompt(prompt=order.prompt, size=size, background=order.background, seed=seed)
    elif "sketch" in order.prompt.lower() and inputs.mask is None:
        made = media.render_sketch(photo, prompt=order.prompt, seed=seed + inputs.others)
        picture = ImageOps.pad(made, size, Image.Resampling.LANCZOS, color=made.getpixel((2, 2)))  # pyright: ignore[reportArgumentType] - of the mode of the picture
    else:
        picture = media.transform_photo(
            photo,
            prompt=order.prompt,
            size=size,
            background=order.background,
            seed=seed + inputs.others,
            mask=inputs.mask,
        )
    return encode(picture, order)


def encode(picture: Image.Image, order: ImageOrder) -> bytes:
    buffer = io.BytesIO()
    match order.output_format:
        case "jpeg":
            picture.convert("RGB").save(buffer, "JPEG", quality=max(1, min(95, order.output_compression)))
        case "webp":
            picture.save(buffer, "WEBP", quality=order.output_compression, method=2)
        case _:
            picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def partial_of(picture: bytes, order: ImageOrder, share: float) -> bytes:
    """What the picture looked like when ``share`` (0–1) of the work was done."""
    image = Image.open(io.BytesIO(picture))
    radius = max(image.size) / 24 * (1 - share) + 1
    return encode(image.filter(ImageFilter.GaussianBlur(radius)), order)


def _open(data: bytes, param: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP"))
        check_pixels(image, param)
        image.load()
    except OpenAIRefusal:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise refuse("invalid_image_file", "Invalid image file or mode.", param) from None
    return image
