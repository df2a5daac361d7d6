"""What things can be made of: colours, gloss, and a grain that runs through the whole body."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import numpy as np

from app.sandbox.media.arrays import Field, Vectors
from app.sandbox.media.noise import mix, noise3
from app.sandbox.media.words import LOOK_OF, Colour, Wish

Grain: TypeAlias = Callable[[Vectors, int], Field]
"""Values 0–1 at points (n, 3) of a body of height 1."""


@dataclass(frozen=True, slots=True)
class Material:
    ramp: tuple[Colour, ...]
    """sRGB from the darkest grain to the lightest."""
    metallic: float
    roughness: float
    grain: Grain
    bump: float
    """How deep the grain is felt, 0–1."""
    picture: float
    """How much of the picture's own light and dark shows through, 0–1."""
    glow: float = 0.0

    def colour_at(self, value: Field) -> Vectors:
        """sRGB, shape (n, 3), for grain values 0–1."""
        stops = np.linspace(0, 1, len(self.ramp))
        return np.stack(
            [np.interp(value, stops, [colour[channel] for colour in self.ramp]) for channel in range(3)], axis=-1
        ).astype(np.float32)


def _rings(points: Vectors, seed: int) -> Field:
    bent = noise3(points * 2.1, seed=seed, octaves=2)
    fibre = noise3(points * np.array([46.0, 3.0, 46.0], np.float32), seed=mix(seed, 1))
    radius = np.hypot(points[:, 0] + 0.62, points[:, 2] + 0.35) * 15 + bent * 1.6 + points[:, 1] * 0.8
    ring = radius - np.floor(radius)
    return np.clip(0.25 + 0.6 * ring**1.7 * (1 - ring**14) + 0.16 * fibre, 0, 1)


def _veins(points: Vectors, seed: int) -> Field:
    bent = noise3(points * 2.3, seed=seed, octaves=4)
    fine = noise3(points * 5.5, seed=mix(seed, 2), octaves=3)
    vein = np.abs(np.sin((points[:, 0] + 0.7 * points[:, 1] + 0.4 * points[:, 2]) * 4.5 + bent * 5.5))
    thin = np.abs(fine)
    return np.clip(0.12 + 0.88 * np.minimum(vein**0.35, 0.45 + thin**0.4 * 0.75) + 0.1 * bent, 0, 1)


def _speckles(points: Vectors, seed: int) -> Field:
    broad = noise3(points * 5, seed=seed, octaves=3)
    grit = noise3(points * 70, seed=mix(seed, 3), octaves=2)
    return np.clip(0.5 + 0.28 * broad + 0.42 * grit, 0, 1)


def _clouded(points: Vectors, seed: int) -> Field:
    bent = noise3(points * 3.0, seed=seed, octaves=4)
    return np.clip(0.5 + 0.75 * noise3(points * 2.2 + bent[:, None], seed=mix(seed, 4), octaves=3), 0, 1)


def _brushed(points: Vectors, seed: int) -> Field:
    lines = noise3(points * np.array([4.0, 130.0, 4.0], np.float32), seed=seed)
    return np.clip(0.55 + 0.2 * noise3(points * 3, seed=mix(seed, 5), octaves=2) + 0.12 * lines, 0, 1)


def _hammered(points: Vectors, seed: int) -> Field:
    dents = noise3(points * 17, seed=seed)
    stain = noise3(points * 4, seed=mix(seed, 6), octaves=4)
    return np.clip(0.52 + 0.22 * dents + 0.45 * stain, 0, 1)


def _stitches(points: Vectors, seed: int) -> Field:
    across, up = points[:, 0] * 34, points[:, 1] * 30
    column = np.floor(across)
    part = across - column - 0.5
    arm = np.abs(np.sin(np.pi * (up + np.abs(part) * 1.2)))
    body = (1 - np.abs(part) * 1.3) * (0.35 + 0.65 * arm)
    fuzz = noise3(points * 120, seed=seed)
    return np.clip(0.1 + 0.85 * body + 0.14 * fuzz, 0, 1).astype(np.float32)


def _glaze(points: Vectors, seed: int) -> Field:
    return np.clip(0.62 + 0.3 * noise3(points * 2.5, seed=seed, octaves=3), 0, 1)


def _plain(points: Vectors, seed: int) -> Field:
    return np.clip(0.55 + 0.2 * noise3(points * 9, seed=seed, octaves=3), 0, 1)


_MATERIALS: Final[dict[str, Material]] = {
    "wood": Material(((0.30, 0.17, 0.09), (0.56, 0.35, 0.19), (0.76, 0.55, 0.33)), 0.0, 0.55, _rings, 0.35, 0.45),
    "marble": Material(((0.52, 0.53, 0.56), (0.84, 0.84, 0.85), (0.96, 0.955, 0.945)), 0.0, 0.28, _veins, 0.0, 0.45),
    "gold": Material(((0.62, 0.40, 0.08), (0.93, 0.70, 0.26), (1.0, 0.86, 0.50)), 1.0, 0.24, _plain, 0.06, 0.35),
    "bronze": Material(((0.20, 0.40, 0.34), (0.52, 0.33, 0.18), (0.80, 0.52, 0.29)), 0.9, 0.36, _hammered, 0.25, 0.45),
    "silver": Material(((0.45, 0.47, 0.50), (0.78, 0.80, 0.82), (0.95, 0.96, 0.97)), 1.0, 0.24, _brushed, 0.06, 0.35),
    "stone": Material(((0.33, 0.32, 0.31), (0.56, 0.55, 0.53), (0.76, 0.75, 0.72)), 0.0, 0.9, _speckles, 0.5, 0.5),
    "jade": Material(((0.05, 0.28, 0.19), (0.22, 0.55, 0.40), (0.66, 0.84, 0.68)), 0.0, 0.2, _clouded, 0.0, 0.5, 0.04),
    "glass": Material(((0.36, 0.58, 0.68), (0.66, 0.84, 0.90), (0.93, 0.98, 1.0)), 0.0, 0.08, _glaze, 0.0, 0.5, 0.12),
    "ceramic": Material(((0.70, 0.74, 0.78), (0.90, 0.91, 0.90), (0.98, 0.975, 0.96)), 0.0, 0.16, _glaze, 0.0, 0.75),
    "wool": Material(((0.42, 0.28, 0.26), (0.78, 0.58, 0.50), (0.95, 0.84, 0.74)), 0.0, 0.95, _stitches, 0.8, 0.6),
    "neon": Material(((0.02, 0.02, 0.07), (0.16, 0.06, 0.38), (0.10, 0.95, 0.95)), 0.2, 0.35, _veins, 0.0, 0.4, 0.9),
    "clay": Material(((0.62, 0.38, 0.28), (0.80, 0.53, 0.40), (0.90, 0.68, 0.55)), 0.0, 0.75, _plain, 0.3, 0.6),
}
_NATURAL_TINT: Final[dict[str, Colour]] = {
    "walnut": (0.36, 0.22, 0.13),
    "mahogany": (0.45, 0.19, 0.13),
    "pine": (0.86, 0.68, 0.42),
    "birch": (0.88, 0.77, 0.58),
    "bamboo": (0.82, 0.71, 0.40),
    "oak": (0.70, 0.50, 0.29),
    "brass": (0.80, 0.64, 0.30),
    "copper": (0.82, 0.45, 0.29),
    "rusty": (0.60, 0.28, 0.13),
    "rust": (0.60, 0.28, 0.13),
    "iron": (0.40, 0.41, 0.43),
    "steel": (0.62, 0.65, 0.69),
    "sandstone": (0.80, 0.65, 0.45),
    "slate": (0.30, 0.34, 0.39),
    "granite": (0.52, 0.50, 0.50),
    "terracotta": (0.78, 0.42, 0.29),
}


def material_of(name: str, wish: Wish, *, seed: int) -> Material:
    """The material called `name`, coloured as the wish says: named colours, else its kind, else a shift of its own."""
    material = _MATERIALS.get(name, _MATERIALS["clay"])
    kinds = [_NATURAL_TINT[word] for word in wish.words if word in _NATURAL_TINT and LOOK_OF.get(word, name) == name]
    # "gold" is a colour and a material; it does not tint itself.
    colours = [colour for colour in wish.colours if name not in ("gold", "silver")] or kinds
    if name not in _MATERIALS and not colours:
        colours = wish.palette(2, seed=seed)
    if colours:
        return replace(material, ramp=_ramp_of(colours, material.ramp))
    rng = np.random.default_rng([wish.key, seed & 0xFFFFFFFF])
    warmth, bright = rng.normal(0, 0.018, 3), float(rng.normal(1.0, 0.03))
    shifted = [np.clip(np.array(colour) * bright + warmth, 0, 1) for colour in material.ramp]
    return replace(material, ramp=tuple((float(r), float(g), float(b)) for r, g, b in shifted))


def _ramp_of(colours: list[Colour], model: tuple[Colour, ...]) -> tuple[Colour, ...]:
    """A dark-to-light ramp through one or two colours with the contrast of `model`."""
    light = [sum(colour) / 3 for colour in model]
    ramp: list[Colour] = []
    for index, level in enumerate(light):
        colour = colours[min(index * len(colours) // len(light), len(colours) - 1)]
        change = level / light[len(light) // 2]
        lifted = [channel * change if change < 1 else 1 - (1 - channel) / change**1.6 for channel in colour]
        ramp.append((lifted[0], lifted[1], lifted[2]))
    return tuple(ramp)
