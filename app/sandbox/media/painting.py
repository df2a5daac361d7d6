"""A thing made of words: built from solids, lit, then given the look that the prompt names."""

from typing import Final

import numpy as np

from app.sandbox.media.arrays import Field, Rgb, Vectors
from app.sandbox.media.canvas import Canvas, Painted
from app.sandbox.media.lighting import KEY, shade, to_linear, to_srgb
from app.sandbox.media.looks import look_of, paint
from app.sandbox.media.materials import material_of
from app.sandbox.media.noise import mix, noise3
from app.sandbox.media.sculpt import Body, Portrait, portray
from app.sandbox.media.things import thing_of
from app.sandbox.media.words import MATERIALS, Wish

_DARK, _LIGHT = (0.09, 0.085, 0.10), (0.955, 0.945, 0.92)
_LONGEST_SIDE: Final = 760


def paint_thing(wish: Wish, size: tuple[int, int], *, seed: int, fill: float = 0.78) -> Painted:
    """What the words name, in its place in a frame of about `size` (width, height; at most 760 a side)."""
    scale = min(1.0, _LONGEST_SIDE / max(size))
    frame = (max(16, round(size[0] * scale)), max(16, round(size[1] * scale)))
    rng = np.random.default_rng(mix(wish.key, seed, 31))
    thing = thing_of(wish)
    palette = _palette(wish, thing.colours, seed)
    body = Body(thing.build(rng), palette)
    portrait = portray(body, frame, turn=float(rng.uniform(-38, -18)), tilt=float(rng.uniform(9, 16)), fill=fill)
    look = look_of(wish) if wish.look_named else "clay"
    if look in MATERIALS:
        return Painted(_made_of(portrait, wish, look, seed), portrait.alpha)
    lit = _lit(portrait, portrait.colours, roughness=0.42, metallic=0.0, normals=portrait.normals)
    if look in ("clay", "photo"):
        return Painted(lit, portrait.alpha)
    return paint(Canvas(lit, portrait.alpha, np.zeros_like(portrait.alpha), wish, seed))


def _palette(wish: Wish, natural: str, seed: int) -> Vectors:
    chosen = wish.palette(3, seed=seed)
    own = [tuple(int(natural[at + k : at + k + 2], 16) / 255 for k in (0, 2, 4)) for at in range(0, len(natural), 6)]
    if own:
        # Natural colours, a shade of this prompt's own, behind the named ones.
        rng = np.random.default_rng([wish.key, seed & 0xFFFFFFFF, 5])
        shift = rng.normal(0, 0.035, (3, 3))
        named = list(wish.colours[:3])
        rest = [tuple(np.clip(np.array(colour) + move, 0, 1)) for colour, move in zip(own, shift, strict=True)]
        chosen = [*named, *rest[len(named) :]]
    return np.array([*chosen, _DARK, _LIGHT], np.float32)


def _made_of(portrait: Portrait, wish: Wish, name: str, seed: int) -> Rgb:
    """All of one material, its grain running through; the parts' own colours remain as light and dark."""
    material = material_of(name, wish, seed=seed)
    height, width = portrait.alpha.shape
    inside = portrait.alpha.reshape(-1) > 0.01
    points = portrait.points.reshape(-1, 3)[inside] * 0.55
    grain = np.full(height * width, 0.5, np.float32)
    grain[inside] = material.grain(points, mix(wish.key, seed, 7))
    own = portrait.colours @ np.array([0.299, 0.587, 0.114], np.float32)
    value = np.clip(grain.reshape(height, width) * 0.7 + (0.15 + 0.7 * own) * 0.3, 0, 1)
    base = material.colour_at(value.reshape(-1)).reshape(height, width, 3)
    bump = np.stack(np.gradient(grain.reshape(height, width)), axis=-1) * material.bump * 5
    normals = portrait.normals.copy()
    normals[..., 0] -= bump[..., 1]
    normals[..., 1] += bump[..., 0]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    lit = _lit(portrait, base, roughness=material.roughness, metallic=material.metallic, normals=normals)
    return np.clip(lit + material.glow * base * 0.5, 0, 1)


def _lit(portrait: Portrait, base: Rgb, *, roughness: float, metallic: float, normals: Field) -> Rgb:
    inside = portrait.alpha.reshape(-1) > 0.01
    points = portrait.points.reshape(-1, 3)[inside]
    # A breath of unevenness: perfectly clean surfaces look like nothing.
    uneven = 1 + 0.035 * noise3(points * 7, seed=3, octaves=3)
    linear = to_linear(base).reshape(-1, 3)
    linear[inside] = shade(
        linear[inside] * uneven[:, None],
        normals.reshape(-1, 3)[inside],
        np.array([[0.0, 0.0, 1.0]], np.float32),
        metallic=metallic,
        roughness=roughness,
        openness=portrait.openness.reshape(-1)[inside],
        key=KEY,
    )
    return to_srgb(linear).reshape(base.shape)
