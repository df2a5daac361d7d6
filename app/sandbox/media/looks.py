"""The looks by name."""

from collections.abc import Callable
from typing import Final

from app.sandbox.media import looks_painted, looks_solid
from app.sandbox.media.canvas import Canvas, Painted
from app.sandbox.media.words import MATERIALS, Colour, Wish

_LOOKS: Final[dict[str, Callable[[Canvas], Painted]]] = {
    "clay": looks_solid.clay,
    "photo": looks_solid.photograph,
    "watercolor": looks_painted.watercolor,
    "ink": looks_painted.ink,
    "lowpoly": looks_painted.lowpoly,
    "pixel": looks_painted.pixel,
    "neon": looks_painted.neon,
    "oil": looks_painted.oil,
    "cartoon": looks_painted.cartoon,
    "mosaic": looks_painted.mosaic,
    **dict.fromkeys(MATERIALS, looks_solid.material),
}
_BACKDROPS: Final[dict[str, Colour]] = {
    "watercolor": looks_painted.PAPER,
    "ink": (0.78, 0.69, 0.56),  # kraft: the drawing on white paper stands out from it
    "neon": looks_painted.NIGHT,
}


def look_of(wish: Wish) -> str:
    # "a clay toy made of gold", "marble, photorealistic": the material is the stronger word.
    return wish.material or wish.look


def paint(canvas: Canvas) -> Painted:
    return _LOOKS[look_of(canvas.wish)](canvas)


def own_backdrop(wish: Wish) -> Colour | None:
    """The paper or the night that a look needs; None where any studio will do."""
    return _BACKDROPS.get(look_of(wish))
