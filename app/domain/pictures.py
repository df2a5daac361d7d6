"""Untrusted pictures and models: looked at, checked whole, and normalised to plain 8-bit PNG or JPEG. Pure work on
files; the service runs it for pictures in processes of their own, which have limits.

The decoder is chosen by the first bytes and is one of three. Pillow's own choice (``Image.open``) would try more, would
take a phone's JPEG with a second picture inside for an animation, and warns through process-wide state.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageCms
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from app.domain.picture_guard import check_structure_of
from app.domain.sniff import HEAD_BYTES, JPEG, PNG, WEBP, glb_declared_bytes, sniff
from app.errors import AppError, ErrorCode

_DECODERS: Mapping[str, Callable[[Path], ImageFile]] = {PNG: PngImageFile, JPEG: JpegImageFile, WEBP: WebPImageFile}
# what Pillow raises on files that are not what their first bytes say
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error)
_SMALLEST_SIDE = 16
_JPEG_QUALITIES = (95, 85)
_TOP_16_BITS = 65535
_GLB_JSON_CHUNK = struct.Struct("<12xI4s")  # after the header: length and type of the first chunk

_Turn = Image.Transpose
# EXIF orientation: what makes the picture upright
_UPRIGHT = {
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
_SIDES_SWAPPED = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """``max_bytes`` of the file, before and after; ``max_pixels`` is width times height."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that decoded whole. Sides in pixels, as a person sees it (EXIF rotation applied)."""

    width: int
    height: int
    content_type: str


def check_picture(path: Path, limits: PictureLimits) -> Picture:
    """Decode the whole picture. PNG, JPEG and WebP of one frame are accepted; of a JPEG with further pictures behind
    the first (MPO, as phones make them) the first counts.

    Raises AppError: INPUT_EMPTY, INPUT_TOO_LARGE, INPUT_NOT_IMAGE, INPUT_TOO_COMPLEX, INPUT_TRUNCATED,
    INPUT_TOO_MANY_PIXELS, INPUT_TOO_SMALL.
    """
    content_type = _sniffed(path, limits)
    with _opened(path, content_type, limits) as image:
        _load(image)
        width, height = image.size
        if _orientation(image) in _SIDES_SWAPPED:
            width, height = height, width
        return Picture(width, height, content_type)


def normalise_picture(path: Path, target: Path, limits: PictureLimits) -> Picture:
    """Write the picture as providers take it: upright, sRGB, 8 bits, without metadata, within the byte limit. JPEG
    stays JPEG, everything else becomes PNG; opaque ones become JPEG when the PNG would be too large.

    Raises AppError as ``check_picture`` does.
    """
    content_type = _sniffed(path, limits)
    plain = _decoded(path, content_type, limits)
    return _save(plain, target, lossy=content_type == JPEG and plain.mode == "RGB", max_bytes=limits.max_bytes)


def make_preview(path: Path, target: Path, limits: PictureLimits, *, side: int = 1024) -> None:
    """A WebP of at most ``side`` pixels. Raises AppError as ``check_picture`` does."""
    small = _decoded(path, _sniffed(path, limits), limits)
    small.thumbnail((side, side))
    small.save(target, "WEBP", quality=85)


def check_model(path: Path, max_bytes: int) -> None:
    """A glTF 2 binary (GLB) by magic, version, declared length and first chunk.

    Raises AppError: INPUT_EMPTY, INPUT_TOO_LARGE, INPUT_NOT_MODEL.
    """
    size = _checked_size(path, max_bytes)
    with path.open("rb") as source:
        head = source.read(HEAD_BYTES)
    if glb_declared_bytes(head) != size or size < _GLB_JSON_CHUNK.size:
        raise AppError(ErrorCode.INPUT_NOT_MODEL, "A whole GLB (glTF 2.0 binary) is needed.")
    length, kind = _GLB_JSON_CHUNK.unpack_from(head)
    if kind != b"JSON" or _GLB_JSON_CHUNK.size + length > size:
        raise AppError(ErrorCode.INPUT_NOT_MODEL, "The GLB does not begin with its description.")


def _checked_size(path: Path, max_bytes: int) -> int:
    size = path.stat().st_size
    if size == 0:
        raise AppError(ErrorCode.INPUT_EMPTY)
    if size > max_bytes:
        raise AppError(ErrorCode.INPUT_TOO_LARGE, f"At most {max_bytes} bytes are accepted.")
    return size


def _sniffed(path: Path, limits: PictureLimits) -> str:
    _checked_size(path, limits.max_bytes)
    with path.open("rb") as source:
        content_type = sniff(source.read(HEAD_BYTES))
    if content_type is None or content_type not in _DECODERS:
        raise AppError(ErrorCode.INPUT_NOT_IMAGE, "PNG, JPEG and WebP are accepted.")
    check_structure_of(path, content_type, max_pixels=limits.max_pixels)
    return content_type


def _opened(path: Path, content_type: str, limits: PictureLimits) -> ImageFile:
    """The picture, header only: its pixels are counted before any is decoded."""
    try:
        image = _DECODERS[content_type](path)
    except Image.DecompressionBombError:
        raise _too_many_pixels(limits) from None
    except _DAMAGE:
        raise AppError(ErrorCode.INPUT_TRUNCATED) from None
    try:
        _check_header(image, limits)
    except AppError:
        image.close()
        raise
    return image


def _check_header(image: ImageFile, limits: PictureLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(limits)
    if min(width, height) < _SMALLEST_SIDE:
        raise AppError(ErrorCode.INPUT_TOO_SMALL, f"Each side needs at least {_SMALLEST_SIDE} pixels.")
    if getattr(image, "n_frames", 1) > 1:
        raise AppError(ErrorCode.INPUT_NOT_IMAGE, "Animated pictures are not accepted.")


def _load(image: ImageFile) -> None:
    try:
        image.load()
    except _DAMAGE:
        raise AppError(ErrorCode.INPUT_TRUNCATED) from None


def _decoded(path: Path, content_type: str, limits: PictureLimits) -> Image.Image:
    """Upright RGB or RGBA, 8 bits, sRGB, no metadata."""
    with _opened(path, content_type, limits) as image:
        _load(image)
        turn = _UPRIGHT.get(_orientation(image))
        plain = _in_srgb(image)
    plain.info.clear()
    return plain if turn is None else plain.transpose(turn)


def _orientation(image: ImageFile) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1  # broken metadata does not spoil a picture


def _in_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    wanted = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode.startswith("I;16"):
        image, wanted = _grey_of_16_bits(image), "RGB"
    elif wanted == "RGBA" or image.mode not in ("L", "CMYK"):
        image = image.convert(wanted)
    if isinstance(profile, bytes) and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=wanted)
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken or foreign profile: viewers ignore it, too
        if converted is not None:
            return converted
    return image.convert(wanted)


def _grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Scaled, where Pillow's own conversion clips."""
    scale = 255 / _TOP_16_BITS
    return image.convert("F").point(lambda value: value * scale + 0.5).convert("L")


def _save(image: Image.Image, target: Path, *, lossy: bool, max_bytes: int) -> Picture:
    while True:
        if not lossy:
            image.save(target, "PNG", compress_level=3)
            if target.stat().st_size <= max_bytes:
                return Picture(image.width, image.height, PNG)
        if image.mode == "RGB":
            for quality in _JPEG_QUALITIES:
                image.save(target, "JPEG", quality=quality)
                if target.stat().st_size <= max_bytes:
                    return Picture(image.width, image.height, JPEG)
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)))


def _too_many_pixels(limits: PictureLimits) -> AppError:
    return AppError(ErrorCode.INPUT_TOO_MANY_PIXELS, f"At most {limits.max_pixels} pixels are accepted.")
