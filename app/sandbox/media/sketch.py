"""From strokes on paper to areas of colour."""

from typing import Final

import cv2
import numpy as np
from PIL import Image
from scipy import ndimage

from app.sandbox.media.arrays import Field, Mask, Pixels, Vectors
from app.sandbox.media.atlas import extend
from app.sandbox.media.canvas import Painted
from app.sandbox.media.shapes import closed, depth, disc, grown, opened, pieces, without_holes
from app.sandbox.media.subject import alpha_of
from app.sandbox.media.things import thing_of
from app.sandbox.media.words import Wish

_WORK_SIDE: Final = 900
_MOST_INK: Final = 0.42
_GAPS: Final = (0.004, 0.012, 0.03, 0.06, 0.12)
"""Gaps between strokes that are closed to find the outline, as shares of the longer side, tried in turn."""


def color_in(sketch: Image.Image, wish: Wish, *, seed: int) -> Painted | None:
    """The sketch's areas in the wish's colours, its strokes darker; None when it is no sketch.

    The outline is what the strokes enclose; a drawing that encloses nothing becomes what lies between its strokes.
    """
    ink = _ink(sketch)
    if ink is None:
        return None
    strokes = ink > 0.35
    body = _body(strokes)
    areas, count = pieces(body & ~grown(strokes))
    sizes = np.bincount(areas.ravel(), minlength=count + 1)
    palette = _colours(wish, seed)
    largest = np.argsort(-sizes[1:], kind="stable") + 1
    colours = np.zeros((count + 1, 3), np.float32)
    rng = np.random.default_rng([wish.key, seed & 0xFFFFFFFF, 21])
    for rank, area in enumerate(largest[:400]):
        base = palette[rank % len(palette)] if rank < 12 else palette[int(rng.integers(len(palette)))]
        colours[area] = np.clip(base * float(rng.normal(1.0, 0.05)), 0, 1)
    known = areas > 0
    flat = (colours[areas] * 255).astype(np.uint8)
    filled = extend(flat, known) if known.any() else np.broadcast_to((palette[0] * 255).astype(np.uint8), flat.shape)
    own = _own_colour(sketch, ink.shape)
    rgb = filled.astype(np.float32) / 255 * 0.96 + 0.02
    rgb = np.where(own[1][..., None] > 0.5, own[0], rgb)
    drawn = np.asarray(cv2.GaussianBlur(ink, (0, 0), max(ink.shape) / 700), np.float32)[..., None]
    # The outer stroke only tells where the thing ends; it is no black rim around it.
    inward = np.clip(depth(body) / max(3.0, max(ink.shape) / 70) - 0.55, 0, 1)[..., None]
    rgb = rgb * (1 - 0.72 * np.clip(drawn, 0, 1) * inward)
    alpha = np.clip(ndimage.gaussian_filter(body.astype(np.float32), 1.2), 0, 1)
    return Painted(rgb.astype(np.float32), alpha)


def _flattened(sketch: Image.Image) -> Pixels:
    """On white where it is clear, at working size."""
    if alpha_of(sketch) is not None:
        paper = Image.new("RGBA", sketch.size, (255, 255, 255, 255))
        sketch = Image.alpha_composite(paper, sketch.convert("RGBA"))
    flat = sketch.convert("RGB")
    flat.thumbnail((_WORK_SIDE, _WORK_SIDE), Image.Resampling.LANCZOS)
    return np.array(flat)


def _ink(sketch: Image.Image) -> Field | None:
    """How much ink lies on each pixel, 0–1; evens out the light on photographed paper."""
    grey = np.asarray(cv2.cvtColor(_flattened(sketch), cv2.COLOR_RGB2GRAY), np.float32)
    if float(np.median(grey)) < 100:
        grey = 255 - grey  # chalk on a board
    reach = max(grey.shape) // 14 * 2 + 1
    small = np.asarray(cv2.resize(grey, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    paper = ndimage.gaussian_filter(ndimage.maximum_filter(small, max(3, reach // 4)), reach / 8)
    paper = np.asarray(cv2.resize(paper, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)
    ink = np.clip((1 - grey / np.maximum(paper, 1)) * 2.2 - 0.12, 0, 1)
    covered = float((ink > 0.35).mean())
    return ink.astype(np.float32) if 0.0008 <= covered <= _MOST_INK else None


def _body(strokes: Mask) -> Mask:
    """All that cannot be reached from the frame's edge without crossing a stroke."""
    longest = max(strokes.shape)
    body = strokes
    for gap in _GAPS:
        joined = closed(strokes, disc(max(1, round(gap * longest))))
        body = without_holes(joined)
        if body.sum() > 2.5 * joined.sum() and body.mean() > 0.03:
            break
    else:
        body = _hull(strokes)
    labels, count = pieces(body)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return labels == int(sizes.argmax())


def _hull(strokes: Mask) -> Mask:
    """What lies between the strokes of a drawing that encloses nothing."""
    rows, columns = np.nonzero(strokes)
    outline = cv2.convexHull(np.stack([columns, rows], axis=1).astype(np.int32))
    hull = np.zeros(strokes.shape, np.uint8)
    cv2.fillConvexPoly(hull, outline, 1)
    return hull > 0


def _own_colour(sketch: Image.Image, shape: tuple[int, ...]) -> tuple[Field, Field]:
    """(colours, 1 where the sketch itself is coloured in)."""
    rgb = _flattened(sketch).astype(np.float32) / 255
    spread = rgb.max(axis=-1) - rgb.min(axis=-1)
    coloured = opened(spread > 0.22, disc(3)).astype(np.float32)
    return rgb[: shape[0], : shape[1]], coloured


def _colours(wish: Wish, seed: int) -> Vectors:
    natural = thing_of(wish).colours
    own = [tuple(int(natural[at + k : at + k + 2], 16) / 255 for k in (0, 2, 4)) for at in range(0, len(natural), 6)]
    chosen = [*wish.colours, *(own or wish.palette(4, seed=seed)[len(wish.colours) :])]
    return np.array([*chosen, (0.93, 0.90, 0.84)], np.float32)
