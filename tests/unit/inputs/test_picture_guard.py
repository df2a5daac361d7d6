"""The check of a file's structure: hostile ones end it early, by count; real ones pass."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from app.domain.picture_guard import MOST_SEGMENTS, MOST_SMALL_CHUNKS, check_structure
from app.domain.pictures import PictureLimits, check_picture
from app.domain.sniff import HEAD_BYTES, JPEG, PNG, WEBP, sniff
from app.errors import AppError, ErrorCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from PIL.JpegImagePlugin import MARKER
from skimage import data as sample_pictures

from tests.unit.inputs.pictures import attacks, encoded, gradient, noise, png_chunk

TWENTY_MB = 20 * 1024 * 1024
PIXELS = 64_000_000
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# a chunk a kibibyte is let through, and each is one step
MOST_STEPS = MOST_SMALL_CHUNKS + TWENTY_MB // 1024 + 100


class CountedBytes(bytes):
    """Counts the looks at it."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as of bytes
        self.looks += 1
        return super().__getitem__(index)


def passes(content: bytes) -> bool:
    content_type = sniff(content[:HEAD_BYTES])
    assert content_type is not None
    try:
        check_structure(content, content_type, max_pixels=PIXELS)
    except AppError:
        return False
    return True


@pytest.mark.parametrize("name", attacks(100_000))
def test_an_attack_is_refused_after_a_bounded_number_of_looks(name: str) -> None:
    content = CountedBytes(attacks(TWENTY_MB - 2_000)[name])
    content_type = sniff(content[:HEAD_BYTES])
    assert content_type is not None
    with pytest.raises(AppError) as caught:
        check_structure(content, content_type, max_pixels=PIXELS)
    assert caught.value.error is ErrorCode.INPUT_TOO_COMPLEX
    assert content.looks <= 2 * MOST_STEPS + 10


@pytest.mark.parametrize("name", attacks(100_000))
def test_no_decoder_sees_an_attack(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    def decoder(*_: object, **__: object) -> None:
        opened.append(1)
        raise OSError

    for kind in ("PngImagePlugin.PngImageFile", "JpegImagePlugin.JpegImageFile", "WebPImagePlugin.WebPImageFile"):
        monkeypatch.setattr(f"PIL.{kind}._open", decoder)
    path = tmp_path / "a"
    path.write_bytes(attacks(TWENTY_MB - 2_000)[name])
    with pytest.raises(AppError) as caught:
        check_picture(path, PictureLimits(TWENTY_MB, PIXELS))
    assert caught.value.error is ErrorCode.INPUT_TOO_COMPLEX
    assert not opened


@pytest.mark.parametrize("name", attacks(1_000))
def test_a_little_of_it_is_no_attack(name: str) -> None:
    assert passes(attacks(1_000)[name])


def test_which_markers_have_a_length_is_the_decoders_own_view() -> None:
    """A marker that the guard jumps over, and the decoder does not, would hide bytes from it."""
    sides = encoded(gradient(size=(64, 64)), "JPEG")[2:]
    for marker, (_, _, handler) in MARKER.items():
        hidden = struct.pack(">HH", marker, 60_002) + b"\x00" * 60_000
        scan = marker == 0xFFDA
        assert passes(b"\xff\xd8" + hidden + sides) is (handler is not None or scan), hex(marker)


def test_scans_over_more_pixels_than_any_picture_has_are_refused() -> None:
    content = bytearray(encoded(gradient(size=(64, 64)), "JPEG", progressive=True))
    last = content.rindex(b"\xff\xda")
    content = content[:-2] + content[last:-2] * 40 + content[-2:]
    assert passes(bytes(content))
    struct.pack_into(">HH", content, content.index(b"\xff\xc2") + 5, 8000, 8000)
    assert not passes(bytes(content))


# --- what people send --------------------------------------------------------------------------------------------

PHOTOS: dict[str, Callable[[], Any]] = {
    name: getattr(sample_pictures, name)
    for name in ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "page", "moon", "clock", "text")
}


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_photos_pass(tmp_path: Path, name: str, format_name: str) -> None:
    options = {"progressive": True, "optimize": True} if format_name == "JPEG" else {}
    content = encoded(Image.fromarray(PHOTOS[name]()), format_name, exif=exif(), icc_profile=SRGB, **options)
    (tmp_path / "a").write_bytes(content)
    assert check_picture(tmp_path / "a", PictureLimits(TWENTY_MB, PIXELS)).width


def test_a_large_progressive_photo_passes() -> None:
    assert passes(encoded(gradient(size=(8000, 6000)), "JPEG", progressive=True))


def test_large_profiles_and_depth_maps_of_phones_pass() -> None:
    plain = encoded(gradient(), "JPEG", icc_profile=b"\x00" * 65_000 * 60, xmp=b"x" * 60_000)
    segment = b"\xff\xe1\xff\xfd" + b"x" * 65_531
    assert passes(plain[:2] + segment * 150 + plain[2:])


def test_many_chunks_of_data_pass() -> None:
    content = encoded(noise((1500, 1500)), "PNG")
    start = content.index(b"IDAT") - 4
    data = b"".join(content[at : at + 1012] for at in range(start, len(content), 1012))
    pieces = b"".join(png_chunk(b"IDAT", data[at : at + 1012]) for at in range(0, len(data), 1012))
    assert passes(content[:start] + pieces + png_chunk(b"IEND", b""))


def test_what_follows_the_first_picture_does_not_count() -> None:
    assert passes(encoded(gradient(), "JPEG") + b"\xff\xe5\x00\x02" * 5_000)
    assert passes(encoded(gradient(), "PNG") + png_chunk(b"tEXt", b"") * 5_000)


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F] = "a camera"
    tags[0x0112] = 6
    tags[0x9286] = b"x" * 3_000
    return tags


texts = st.lists(st.tuples(st.text("abc", min_size=1, max_size=8), st.text(max_size=40), st.booleans()), max_size=30)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "1"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    format_name=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    profile=st.binary(max_size=100_000),
    texts=texts,
    frames=st.integers(0, 3),
)
def test_nothing_that_pillow_writes_is_refused(
    mode: str,
    size: tuple[int, int],
    format_name: str,
    flags: tuple[bool, bool, bool, bool],
    profile: bytes,
    texts: list[tuple[str, str, bool]],
    frames: int,
) -> None:
    options: dict[str, Any] = {"icc_profile": profile} if profile else {}
    if flags[0]:
        options["exif"] = exif()
    image = gradient("RGB", size).convert(mode)
    if format_name == "JPEG":
        image = image.convert("L" if mode == "1" else "CMYK" if mode == "CMYK" else "RGB")
        options |= {"progressive": flags[1], "optimize": flags[2], "comment": b"a comment", "xmp": b"x" * 1_000}
        options |= {"restart_marker_blocks": 1} if flags[3] else {}
    elif format_name == "PNG":
        image = image.convert("RGB") if mode == "CMYK" else image
        info = PngImagePlugin.PngInfo()
        for key, value, packed in texts:
            info.add_itxt(key, value, zip=packed)
            info.add_text(key, value, zip=packed)
        options |= {"pnginfo": info, "optimize": flags[1], "compress_level": 0 if flags[2] else 6}
        options |= {"save_all": True, "append_images": [image] * frames} if flags[3] else {}
    else:
        image = image.convert("RGBA" if mode == "RGBA" else "RGB")
        options |= {"lossless": flags[1], "xmp": b"x" * 1_000}
        options |= {"save_all": True, "append_images": [image] * frames} if flags[3] else {}
    assert passes(encoded(image, format_name, **options))


pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"\xff", b"\xff\xff", b"\xff\x00", b"\xff\xd0", b"\xff\xd8", b"\xff\xd9", b"\xff\x01"]),
    st.builds(lambda kind, size: bytes((0xFF, kind)) + struct.pack(">H", size), st.integers(0, 255), st.integers(0, 9)),
    st.builds(lambda kind, size: struct.pack(">I", size) + kind, st.binary(min_size=4, max_size=4), st.integers(0, 9)),
)


@settings(deadline=None, max_examples=150)
@given(
    content_type=st.sampled_from([JPEG, PNG, WEBP]),
    pieces=st.lists(st.tuples(pieces, st.sampled_from([1, 3, 5_000])), max_size=12),
)
def test_any_garbage_ends_within_the_caps(content_type: str, pieces: list[tuple[bytes, int]]) -> None:
    content = CountedBytes(b"\xff\xd8\xff" + b"".join(piece * times for piece, times in pieces))
    most = MOST_SEGMENTS if content_type == JPEG else MOST_SMALL_CHUNKS + len(content) // 1024
    with suppress(AppError):
        assert check_structure(content, content_type, max_pixels=PIXELS) <= most
    assert content.looks <= 3 * most + 10
