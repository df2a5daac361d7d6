"""Pictures of the sandbox: a photo becomes concept art, words become a thing, a sketch becomes a render.

Everything is computed from the arguments alone; equal arguments give equal pixels.
"""

from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from app.sandbox.media.arrays import Field, Mask, Pixels, Rgb, Vectors
from app.sandbox.media.atlas import extend
from app.sandbox.media.canvas import Canvas, Painted
from app.sandbox.media.cutting import to_lab
from app.sandbox.media.filters import blur, luminance
from app.sandbox.media.lighting import KEY
from app.sandbox.media.looks import own_backdrop, paint
from app.sandbox.media.noise import mix
from app.sandbox.media.painting import paint_thing
from app.sandbox.media.relief import inflate, normals_of
from app.sandbox.media.shapes import depth
from app.sandbox.media.sketch import color_in
from app.sandbox.media.studio import shadow, stamp, sweep
from app.sandbox.media.subject import alpha_of, subject_mask, unlike_backdrop
from app.sandbox.media.words import Colour, Wish, read_wish

_STUDIO: Final[tuple[Colour, ...]] = (
    (0.925, 0.92, 0.91),
    (0.78, 0.84, 0.90),
    (0.90, 0.83, 0.73),
    (0.66, 0.70, 0.72),
    (0.42, 0.46, 0.52),
    (0.48, 0.62, 0.78),
    (0.80, 0.66, 0.50),
)
_CLEAR_GAP: Final = 17.0
"""CIELAB; comfortably more than `subject_mask` needs to be sure."""
_WORK_PIXELS: Final = 1_150_000
_LONGEST_SIDE: Final = 4096


def transform_photo(
    photo: Image.Image,
    *,
    prompt: str,
    size: tuple[int, int] | None,
    background: str,
    seed: int,
    mask: Image.Image | None = None,
) -> Image.Image:
    """The photo as the art that the prompt asks for, `size` (width, height) pixels, or about the photo's own size.

    `background`: "transparent" gives RGBA with the subject cut out; "opaque", or words like "plain background",
    the subject in a studio; "auto" without such words keeps the whole scene. With a `mask` only what its alpha
    leaves clear is changed, everything else keeps its pixels. Raises ValueError for a size above 4096 a side.
    """
    photo = ImageOps.exif_transpose(photo)
    wish = read_wish(prompt)
    target = _target(photo, size)
    if mask is not None and mask.has_transparency_data:
        return stamp(_edit(photo, mask, wish, target, seed))
    if background == "transparent" or background == "opaque" or wish.plain_background:
        return _in_studio(photo, wish, target, seed, transparent=background == "transparent")
    return stamp(_whole_scene(photo, wish, target, seed))


def paint_prompt(*, prompt: str, size: tuple[int, int], background: str, seed: int) -> Image.Image:
    """The thing that the words name, before a plain backdrop, or cut out (RGBA) when `background` is "transparent".

    Known nouns give that thing, others a figure of their own; colours, materials and looks are as for photos.
    """
    wish = read_wish(prompt)
    target = _checked(size)
    painted = paint_thing(wish, _work_size(target), seed=seed)
    backdrop = own_backdrop(wish) if wish.look_named else None
    backdrop = backdrop or _contrasting(painted.rgb, painted.alpha, first=mix(wish.key, seed))
    return finish(painted, backdrop, target, transparent=background == "transparent")


def render_sketch(sketch: Image.Image, *, prompt: str, seed: int) -> Image.Image:
    """A solid, coloured thing with the sketch's outline and inner lines, before a plain backdrop.

    The longer side has 1024 pixels. A picture without paper and strokes (a photo) is treated as a photo.
    """
    wish = read_wish(prompt)
    target = _target(sketch, None)
    drawn = color_in(ImageOps.exif_transpose(sketch), wish, seed=seed)
    if drawn is None:
        return _in_studio(sketch, wish, target, seed, transparent=False)
    rgb, alpha = _set(drawn.rgb, drawn.alpha, _work_size(target), seed=mix(wish.key, seed))
    painted = paint(Canvas(rgb, alpha, _relief(alpha > 0.5), wish if wish.look_named else read_wish("clay"), seed))
    backdrop = own_backdrop(wish) if wish.look_named else None
    backdrop = backdrop or _contrasting(painted.rgb, painted.alpha, first=mix(wish.key, seed))
    return finish(painted, backdrop, target, transparent=False)


def _target(photo: Image.Image, size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        scale = 1024 / max(photo.size)
        return max(64, round(photo.width * scale)), max(64, round(photo.height * scale))
    return _checked(size)


def _checked(size: tuple[int, int]) -> tuple[int, int]:
    if not all(1 <= side <= _LONGEST_SIDE for side in size):
        raise ValueError(f"a side must have 1 to {_LONGEST_SIDE} pixels")
    return size


def _work_size(target: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, float(np.sqrt(_WORK_PIXELS / (target[0] * target[1]))))
    return max(8, round(target[0] * scale)), max(8, round(target[1] * scale))


def _in_studio(photo: Image.Image, wish: Wish, target: tuple[int, int], seed: int, *, transparent: bool) -> Image.Image:
    rgb, alpha = _staged(photo, _work_size(target), seed=mix(wish.key, seed))
    relief = _relief(alpha > 0.5)
    painted = paint(Canvas(_exposed(rgb, alpha, relief), alpha, relief, wish, seed))
    backdrop = own_backdrop(wish) or _contrasting(painted.rgb, painted.alpha, first=mix(wish.key, seed))
    return finish(painted, backdrop, target, transparent=transparent)


def finish(painted: Painted, backdrop: Colour, target: tuple[int, int], *, transparent: bool) -> Image.Image:
    """The painted subject cut out, or before a backdrop with its shadow; at `target` size, with the mark."""
    if transparent:
        return stamp(_cut_out(painted).resize(target, Image.Resampling.LANCZOS))
    alpha = np.clip(painted.alpha, 0, 1)[..., None]
    height, width = alpha.shape[:2]
    ground = sweep((width, height), backdrop) * (1 - shadow(alpha[..., 0]))[..., None]
    return stamp(_image(painted.rgb * alpha + ground * (1 - alpha)).resize(target, Image.Resampling.LANCZOS))


def _cut_out(painted: Painted) -> Image.Image:
    return _image(np.concatenate([painted.rgb, painted.alpha[..., None]], axis=-1))


def _whole_scene(photo: Image.Image, wish: Wish, target: tuple[int, int], seed: int) -> Image.Image:
    work = _work_size(target)
    fitted = ImageOps.fit(photo.convert("RGB"), work, Image.Resampling.LANCZOS)
    rgb = np.asarray(fitted, np.float32) / 255
    whole = np.ones(rgb.shape[:2], np.float32)
    relief = _relief(subject_mask(fitted)) * 0.5
    painted = paint(Canvas(rgb, whole, relief, wish, seed))
    return _image(painted.rgb).resize(target, Image.Resampling.LANCZOS)


def _edit(photo: Image.Image, mask: Image.Image, wish: Wish, target: tuple[int, int], seed: int) -> Image.Image:
    """Only where the mask is clear: new content grows out of the surroundings, then the wish's thing stands in it."""
    kept = ImageOps.fit(photo.convert("RGB"), target, Image.Resampling.LANCZOS)
    opening = ImageOps.fit(mask.convert("RGBA").getchannel("A").resize(photo.size), target, Image.Resampling.BILINEAR)
    free = np.asarray(opening) < 128
    if not free.any():
        return kept
    if free.mean() > 0.97:
        return _whole_scene(photo, wish, target, seed)
    rows, columns = np.flatnonzero(free.any(axis=1)), np.flatnonzero(free.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    pixels = np.asarray(kept)
    filled = Image.fromarray(_filled(pixels, free))
    if not wish.removal:
        side = max(16, min(box[2] - box[0], box[3] - box[1]))
        thing = _cut_out(paint_thing(wish, (side, side), seed=seed, fill=0.92)).resize((side, side))
        filled.paste(thing, ((box[0] + box[2] - side) // 2, box[3] - side), thing)
    # The edge is softened inwards: what the mask covers keeps every pixel.
    blend = np.clip(depth(free) / max(1.5, min(target) / 300), 0, 1)[..., None]
    mixed = pixels * (1 - blend) + np.asarray(filled, np.float32) * blend
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def _filled(pixels: Pixels, free: Mask) -> Pixels:
    height, width = free.shape
    scale = min(1.0, 384 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    hole = (np.asarray(cv2.resize(free.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0.01).astype(np.uint8)
    grown = np.asarray(cv2.inpaint(small, hole, 5, cv2.INPAINT_TELEA), np.uint8)
    large = np.asarray(cv2.resize(grown, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.where(free[..., None], large, pixels)


def _staged(photo: Image.Image, work: tuple[int, int], *, seed: int) -> tuple[Rgb, Field]:
    """The subject cut out, turned by a few degrees and set in the middle of an empty frame."""
    source = photo if photo.mode in ("RGB", "RGBA") else photo.convert("RGBA" if photo.has_transparency_data else "RGB")
    source = source.copy()
    source.thumbnail((1280, 1280), Image.Resampling.LANCZOS)
    mask = subject_mask(source)
    own = alpha_of(source)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 0.9) if own is None else own * mask
    return _set(extend(np.asarray(source.convert("RGB")), mask) / np.float32(255), soft, work, seed=seed)


def _exposed(rgb: Rgb, alpha: Field, relief: Field) -> Rgb:
    """A subject that is a black or flat shape gets light and roundness, so that a look has something to paint."""
    light = luminance(rgb)[alpha > 0.5]
    if not light.size:
        return rgb
    lift = float(np.clip(0.3 - np.median(light), 0, 0.26))
    lifted = lift + rgb * (1 - lift)
    flat = float(np.clip((0.09 - light.std()) / 0.05, 0, 1))
    if flat == 0:
        return lifted
    toward = normals_of(blur(relief, max(rgb.shape) / 150)) @ KEY
    return np.clip(lifted * (1 + flat * 0.75 * (toward - 0.45))[..., None], 0, 1)


def _set(rgb: Rgb, soft: Field, work: tuple[int, int], *, seed: int) -> tuple[Rgb, Field]:
    mask = soft > 0.5
    rng = np.random.default_rng(seed)
    angle = float(rng.uniform(-3.5, 3.5))
    rows, columns = np.nonzero(mask)
    if mask[-1].any():
        angle = 0.0  # cut off by the frame: it stands on its cut, which has to stay level
    turned = cv2.getRotationMatrix2D((float(columns.mean()), float(rows.mean())), angle, 1.0)
    spots = np.stack([columns, rows, np.ones_like(rows)]).T[:: max(1, rows.size // 5000)] @ turned.T
    low, high = spots.min(axis=0), spots.max(axis=0)
    fill = float(rng.uniform(0.72, 0.78))
    scale = min(fill * work[0] / (high[0] - low[0] + 1), fill * work[1] / (high[1] - low[1] + 1))
    matrix = turned * scale
    matrix[:, 2] += np.array(work) * [0.5, 0.49] - (low + high) / 2 * scale
    flags = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_CUBIC
    moved = cv2.warpAffine(rgb, matrix, work, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(
        soft.astype(np.float32), matrix, work, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.clip(np.asarray(moved, np.float32), 0, 1), np.clip(np.asarray(alpha, np.float32), 0, 1)


def _relief(mask: Mask) -> Field:
    height, width = mask.shape
    scale = min(1.0, 360 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)) > 0.5
    return np.asarray(cv2.resize(inflate(small), (width, height), interpolation=cv2.INTER_CUBIC), np.float32) / scale


def _contrasting(rgb: Rgb, alpha: Field, *, first: int) -> Colour:
    """The studio paper that the subject stands out from; among good ones the seed chooses."""
    rim = rgb[(alpha > 0.5) & (ndimage.gaussian_filter(alpha, 4) < 0.97)]
    if not len(rim):
        return _STUDIO[0]
    body = rgb[alpha > 0.5][:: max(1, int((alpha > 0.5).sum()) // 20_000)]
    gaps = [min(_gap(rim, paper, 0.15), _gap(body, paper, 0.15)) for paper in _STUDIO]
    good = [paper for paper, gap in zip(_STUDIO, gaps, strict=True) if gap > _CLEAR_GAP]
    return good[first % min(len(good), 3)] if good else _STUDIO[int(np.argmax(gaps))]


def _gap(pixels: Rgb, paper: Colour, share: float) -> float:
    """The distance to the paper, as `subject_mask` measures it, that all but `share` of the pixels keep."""
    away = to_lab(np.round(pixels[None] * 255).astype(np.uint8)) - to_lab(
        np.round(np.array([[paper]]) * 255).astype(np.uint8)
    )
    return float(np.quantile(unlike_backdrop(away), share))


def _image(pixels: Vectors) -> Image.Image:
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
