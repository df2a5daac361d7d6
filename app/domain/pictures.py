"""Untrusted pictures: looked at, checked whole, and normalised to plain 8-bit PNG or JPEG. Pure work on files; callers
run it in threads."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from app.domain.sniff import HEAD_BYTES, sniff
from app.errors import AppError, ErrorCode

_FORMATS = ("PNG", "JPEG", "WEBP")
_SMALLEST_SIDE = 16
_GLB_HEADER = struct.Struct("<4sII")
_GLB_VERSION = 2


@dataclass(frozen=True, slots=True)
class PictureLimits:
    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that decoded whole. Sides in pixels, as a person sees it (EXIF rotation applied)."""

    width: int
    height: int
    content_type: str


def check_picture(path: Path, limits: PictureLimits) -> Picture:
    """Decode the whole picture. Raises AppError with one of the INPUT_* codes."""
    content_type = _check_bytes(path, limits)
    with _opened(path, limits) as image:
        _load(image)
        width, height = image.size
        if image.getexif().get(0x0112) in (5, 6, 7, 8):  # orientations that swap the sides
            width, height = height, width
        return Picture(width, height, content_type)


def normalise_picture(path: Path, target: Path, limits: PictureLimits) -> Picture:
    """Write the picture as providers take it: upright, sRGB, 8 bits, PNG when it has alpha, else PNG or JPEG.

    Raises AppError with one of the INPUT_* codes.
    """
    content_type = _check_bytes(path, limits)
    with _opened(path, limits) as image:
        _load(image)
        upright = ImageOps.exif_transpose(image)
        plain = _to_srgb(_to_8_bits(upright))
    lossy = content_type == "image/jpeg" and plain.mode == "RGB"
    return _save(plain, target, "JPEG" if lossy else "PNG", limits)


def check_model(path: Path, max_bytes: int) -> None:
    """A GLB by magic, version and declared length. Raises AppError(INPUT_NOT_MODEL, INPUT_TOO_LARGE, INPUT_EMPTY)."""
    size = path.stat().st_size
    if size == 0:
        raise AppError(ErrorCode.INPUT_EMPTY)
    if size > max_bytes:
        raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {max_bytes} bytes are accepted.")
    with path.open("rb") as source:
        head = source.read(_GLB_HEADER.size)
    if len(head) < _GLB_HEADER.size:
        raise AppError(ErrorCode.INPUT_NOT_MODEL)
    magic, version, length = _GLB_HEADER.unpack(head)
    if magic != b"glTF" or version != _GLB_VERSION or length != size:
        raise AppError(ErrorCode.INPUT_NOT_MODEL, "A whole GLB (glTF 2.0 binary) is needed.")


def make_preview(path: Path, target: Path, limits: PictureLimits, *, side: int = 1024) -> None:
    """A WebP of at most ``side`` pixels. Raises AppError with one of the INPUT_* codes."""
    _check_bytes(path, limits)
    with _opened(path, limits) as image:
        _load(image)
        small = _to_srgb(_to_8_bits(image))
    small.thumbnail((side, side))
    small.save(target, "WEBP", quality=85)


def _check_bytes(path: Path, limits: PictureLimits) -> str:
    size = path.stat().st_size
    if size == 0:
        raise AppError(ErrorCode.INPUT_EMPTY)
    if size > limits.max_bytes:
        raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {limits.max_bytes} bytes are accepted.")
    with path.open("rb") as source:
        content_type = sniff(source.read(HEAD_BYTES))
    if content_type is None or not content_type.startswith("image/"):
        raise AppError(ErrorCode.INPUT_NOT_IMAGE, "PNG, JPEG and WebP are accepted.")
    return content_type


def _opened(path: Path, limits: PictureLimits) -> Image.Image:
    """The picture, header only. Its pixels are counted before any is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
            image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise AppError(ErrorCode.INPUT_TOO_MANY_PIXELS) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        raise AppError(ErrorCode.INPUT_TRUNCATED) from None
    width, height = image.size
    if width * height > limits.max_pixels:
        image.close()
        raise AppError(ErrorCode.INPUT_TOO_MANY_PIXELS, f"At most {limits.max_pixels} pixels are accepted.")
    if min(width, height) < _SMALLEST_SIDE:
        image.close()
        raise AppError(ErrorCode.INPUT_TOO_SMALL, f"Each side needs at least {_SMALLEST_SIDE} pixels.")
    if getattr(image, "n_frames", 1) > 1:
        image.close()
        raise AppError(ErrorCode.INPUT_NOT_IMAGE, "Animated pictures are not accepted.")
    return image


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Image.DecompressionBombError:
        raise AppError(ErrorCode.INPUT_TOO_MANY_PIXELS) from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise AppError(ErrorCode.INPUT_TRUNCATED) from None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """16-bit and float greys scaled, not clipped."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = image.convert("F")
        top = 65535.0 if (grey.getextrema()[1] or 0) > 255 else 255.0  # pyright: ignore[reportOperatorIssue]
        return grey.point(lambda value: value * (255.0 / top)).convert("L").convert("RGB")
    return image


def _to_srgb(image: Image.Image) -> Image.Image:
    has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    wanted = "RGBA" if has_alpha else "RGB"
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "RGBA"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=wanted)
            if converted is not None:
                return converted
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile: the plain conversion is what every viewer does then
    return image.convert(wanted)


def _save(image: Image.Image, target: Path, format_name: str, limits: PictureLimits) -> Picture:
    """Save under the byte limit, scaling down as far as needed."""
    image.info.clear()
    while True:
        if format_name == "JPEG":
            image.save(target, "JPEG", quality=95)
        else:
            image.save(target, "PNG", compress_level=3)
        if target.stat().st_size <= limits.max_bytes:
            return Picture(image.width, image.height, f"image/{format_name.lower()}")
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))
