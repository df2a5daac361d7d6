from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from app.domain.pictures import PictureLimits, check_picture, make_preview, normalise_picture
from app.errors import AppError, ErrorCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.unit.inputs.pictures import LIMITS, gradient, noise, png_chunk, raw_png, saved

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def refusal(path: Path, limits: PictureLimits = LIMITS) -> ErrorCode:
    with pytest.raises(AppError) as caught:
        check_picture(path, limits)
    return caught.value.error


def close(left: tuple[int, ...], right: tuple[int, ...], tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(left, right, strict=True))


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return tuple(int(part) for part in value)


def normal(path: Path, limits: PictureLimits = LIMITS) -> Image.Image:
    target = path.with_suffix(".normal")
    picture = normalise_picture(path, target, limits)
    with Image.open(target) as image:
        image.load()
    assert image.size == (picture.width, picture.height)
    assert Image.MIME[image.format or ""] == picture.content_type
    assert target.stat().st_size <= limits.max_bytes
    assert not image.getexif()
    assert "icc_profile" not in image.info
    return image


@pytest.mark.parametrize(("format_name", "content_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_png_and_jpeg_stay_what_they_are(tmp_path: Path, format_name: str, content_type: str) -> None:
    path = saved(tmp_path / "a", gradient(), format_name)
    seen = check_picture(path, LIMITS)
    assert (seen.width, seen.height, seen.content_type) == (64, 48, content_type)
    assert normal(path).format == format_name


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_becomes_png(tmp_path: Path, lossless: bool) -> None:
    path = saved(tmp_path / "a", gradient(), "WEBP", lossless=lossless, quality=95)
    assert check_picture(path, LIMITS).content_type == "image/webp"
    image = normal(path)
    assert image.format == "PNG"
    assert close(pixel(image, 32, 24), pixel(gradient(), 32, 24), 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_rotation_of_the_camera_is_applied(tmp_path: Path, format_name: str, orientation: int) -> None:
    upright = Image.new("RGB", (96, 32), "white")
    upright.paste("red", (0, 0, 32, 16))  # top left as a person sees it
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    path = saved(tmp_path / "a", stored, format_name, exif=exif)
    seen = check_picture(path, LIMITS)
    assert (seen.width, seen.height) == (96, 32)
    image = normal(path)
    assert close(pixel(image, 12, 6), (255, 0, 0), 20)
    assert close(pixel(image, 84, 26), (255, 255, 255), 20)


def test_position_and_camera_do_not_leave_the_house(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"
    path = saved(tmp_path / "a", gradient(), "JPEG", exif=exif, comment=b"secret place")
    normal(path)
    assert b"secret place" not in path.with_suffix(".normal").read_bytes()
    assert b"a camera" not in path.with_suffix(".normal").read_bytes()


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95)
    image = normal(path)
    assert image.mode == "RGB"
    assert close(pixel(image, 30, 30), (255, 0, 0), 12)


def test_colours_come_through_the_embedded_profile(tmp_path: Path) -> None:
    swapped = swap_red_and_green(SRGB)
    path = saved(tmp_path / "a", Image.new("RGB", (64, 64), (250, 10, 10)), "PNG", icc_profile=swapped)
    assert close(pixel(normal(path), 5, 5), (10, 250, 10), 12)


def test_alpha_survives_a_profile(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (64, 64), (250, 10, 10, 0))
    picture.paste((250, 10, 10, 128), (0, 0, 32, 64))
    path = saved(tmp_path / "a", picture, "PNG", icc_profile=swap_red_and_green(SRGB))
    image = normal(path)
    assert image.mode == "RGBA"
    assert close(pixel(image, 5, 5), (10, 250, 10, 128), 12)
    assert pixel(image, 60, 5)[3] == 0


def swap_red_and_green(profile: bytes) -> bytes:
    """The same profile with two entries of its tag table exchanged."""
    return profile.replace(b"rXYZ", b"!XYZ", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"!XYZ", b"gXYZ", 1)


@pytest.mark.parametrize("profile", [b"no profile at all", SRGB[:200], SRGB.replace(b"RGB ", b"CMYK", 1)])
def test_a_broken_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    path = saved(tmp_path / "a", gradient(), "PNG", icc_profile=profile)
    assert close(pixel(normal(path), 40, 20), pixel(gradient(), 40, 20), 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_kept(tmp_path: Path, mode: str) -> None:
    picture = gradient(mode)
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    image = normal(saved(tmp_path / "a", picture, "PNG"))
    assert image.mode == "RGBA"
    assert pixel(image, 10, 47)[3] > 240
    assert pixel(image, 10, 0)[3] < 15


def test_a_transparent_colour_is_alpha(tmp_path: Path) -> None:
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(0, (0, 0, 16, 32))
    image = normal(saved(tmp_path / "a", palette, "PNG", transparency=0))
    assert pixel(image, 2, 2)[3] == 0
    assert pixel(image, 30, 2) == (0, 0, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_plain_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = normal(saved(tmp_path / "a", gradient().convert(mode), "PNG"))
    assert image.mode == "RGB"


@pytest.mark.parametrize(("top", "expected"), [(65535, 255), (32768, 128), (200, 1)])
def test_16_bit_grey_is_scaled_and_never_guessed(tmp_path: Path, top: int, expected: int) -> None:
    row = b"\x00" + b"".join(struct.pack(">H", top * x // 63) for x in range(64))
    path = tmp_path / "a.png"
    path.write_bytes(raw_png(64, 64, bits=16, colour=0, rows=row * 64))
    image = normal(path)
    assert image.mode == "RGB"
    assert close(pixel(image, 63, 3), (expected,) * 3, 1)
    assert close(pixel(image, 31, 3), (round(expected * 31 / 63),) * 3, 1)


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    row = b"\x00" + struct.pack(">HHH", 65535, 32768, 257) * 64
    path = tmp_path / "a.png"
    path.write_bytes(raw_png(64, 64, bits=16, colour=2, rows=row * 64))
    assert close(pixel(normal(path), 8, 8), (255, 128, 1), 1)


@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_animations_are_refused(tmp_path: Path, format_name: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    path = saved(tmp_path / "a", frames[0], format_name, save_all=True, append_images=frames[1:], duration=100)
    assert refusal(path) is ErrorCode.INPUT_NOT_IMAGE


def test_the_second_picture_of_a_phone_is_no_animation(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", gradient(), "MPO", save_all=True, append_images=[gradient(size=(32, 32))])
    assert path.read_bytes().startswith(b"\xff\xd8\xff")
    assert check_picture(path, LIMITS).width == 64
    assert normal(path).format == "JPEG"


@pytest.mark.parametrize("format_name", ["GIF", "TIFF", "BMP", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused_whatever_their_name(tmp_path: Path, format_name: str) -> None:
    assert refusal(saved(tmp_path / "photo.png", gradient(), format_name)) is ErrorCode.INPUT_NOT_IMAGE


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>",
        b"<!doctype html><script>alert(1)</script>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"MZ\x90\x00" * 50,
        b"\x00",
    ],
)
def test_no_pictures(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert refusal(path) is ErrorCode.INPUT_NOT_IMAGE


def test_empty_and_too_large_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    assert refusal(path) is ErrorCode.INPUT_EMPTY
    saved(path, noise((200, 200)), "PNG")
    assert refusal(path, PictureLimits(1000, 10**6)) is ErrorCode.INPUT_TOO_LARGE


@pytest.mark.parametrize("size", [(15, 400), (400, 1)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    assert refusal(saved(tmp_path / "a", gradient(size=size), "PNG")) is ErrorCode.INPUT_TOO_SMALL


@pytest.mark.parametrize("side", [1001, 9_000, 14_000, 40_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(raw_png(side, side, bits=8, colour=2, rows=b"\x00" * 1000))
    assert refusal(path) is ErrorCode.INPUT_TOO_MANY_PIXELS


@pytest.mark.parametrize("side", [2_000, 16_383])
def test_a_webp_bomb_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    path = saved(tmp_path / "a", Image.new("RGB", (64, 64)), "WEBP", lossless=True)
    content = bytearray(path.read_bytes())
    assert content[12:16] == b"VP8L"
    (old,) = struct.unpack_from("<I", content, 21)
    struct.pack_into("<I", content, 21, old & ~0x0FFFFFFF | (side - 1) | (side - 1) << 14)
    path.write_bytes(content)
    assert refusal(path) is ErrorCode.INPUT_TOO_MANY_PIXELS


def test_a_jpeg_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    content = bytearray(saved(tmp_path / "a", gradient(), "JPEG").read_bytes())
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, 60_000, 60_000)
    (tmp_path / "a").write_bytes(content)
    assert refusal(tmp_path / "a") is ErrorCode.INPUT_TOO_MANY_PIXELS


def test_a_jpeg_of_endless_scans_is_refused_undecoded(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", gradient(), "JPEG", progressive=True)
    assert check_picture(path, LIMITS).width == 64
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:-2] + content[last:-2] * 200 + b"\xff\xd9")
    assert refusal(path) is ErrorCode.INPUT_TOO_COMPLEX


def test_no_marker_hides_scans(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", gradient(), "JPEG", progressive=True)
    content = path.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    alone = b"\xff\x01"  # decoders read on behind it; taken for a length, the marker that follows skips 65,498 bytes
    path.write_bytes(content[:-2] + alone + last * 200 + b"\x00" * 65_536 + b"\xff\xd9")
    assert refusal(path) is ErrorCode.INPUT_TOO_COMPLEX


def test_what_lies_behind_a_jpeg_does_not_count(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", gradient(), "JPEG")
    path.write_bytes(path.read_bytes() + b"\xff\xda\x00\x02" * 500)  # phones append films
    assert check_picture(path, LIMITS).width == 64


def test_a_bomb_in_a_text_chunk_is_refused(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a", gradient(), "PNG").read_bytes()
    bomb = png_chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"\x00" * 200_000_000, 9))
    (tmp_path / "a").write_bytes(whole[:33] + bomb + whole[33:])
    assert refusal(tmp_path / "a", PictureLimits(4_000_000, 10**6)) is ErrorCode.INPUT_TRUNCATED


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.95])
def test_truncated(tmp_path: Path, format_name: str, share: float) -> None:
    content = saved(tmp_path / "a", noise((128, 128)), format_name).read_bytes()
    (tmp_path / "a").write_bytes(content[: max(40, int(len(content) * share))])
    assert refusal(tmp_path / "a") is ErrorCode.INPUT_TRUNCATED
    with pytest.raises(AppError):
        normalise_picture(tmp_path / "a", tmp_path / "b", LIMITS)


def test_an_opaque_result_over_the_limit_becomes_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", noise((300, 300)), "WEBP", quality=80)
    image = normal(path, PictureLimits(path.stat().st_size * 3, 10**6))
    assert (image.format, image.size) == ("JPEG", (300, 300))


def test_a_small_limit_scales_down(tmp_path: Path) -> None:
    picture = noise((300, 300)).convert("RGBA")
    picture.putalpha(Image.effect_noise((300, 300), 90))
    path = saved(tmp_path / "a", picture, "WEBP", quality=10)
    image = normal(path, PictureLimits(path.stat().st_size, 10**6))
    assert image.mode == "RGBA"
    assert image.width < 300


def test_previews_fit_and_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a", gradient(size=(600, 300)), "JPEG", exif=exif)
    make_preview(path, tmp_path / "b.webp", LIMITS, side=100)
    with Image.open(tmp_path / "b.webp") as image:
        assert (image.format, image.size) == ("WEBP", (50, 100))


def encoded(format_name: str) -> bytes:
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient(size=(24, 20)).save(sink, format_name, exif=exif, icc_profile=SRGB)
    return sink.getvalue()


SAMPLES = {name: encoded(name) for name in ("PNG", "JPEG", "WEBP")}


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    places=st.lists(st.tuples(st.integers(12, 10_000), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 400),
)
def test_damage_is_refused_or_survived(tmp_path: Path, name: str, places: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(SAMPLES[name])
    for place, value in places:
        content[12 + place % (len(content) - 12)] = value
    path = tmp_path / "a"
    path.write_bytes(content[: len(content) - cut])
    with suppress(AppError):  # and nothing else
        picture = normalise_picture(path, tmp_path / "b", LIMITS)
        assert picture.width * picture.height <= LIMITS.max_pixels
