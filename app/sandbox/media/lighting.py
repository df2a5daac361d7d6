"""How light falls: one key light, one fill, a bright room; shared by pictures and previews."""

from typing import Final

import numpy as np

from app.sandbox.media.arrays import Rgb, Vectors


def _direction(x: float, y: float, z: float) -> Vectors:
    vector = np.array([x, y, z])
    return vector / np.linalg.norm(vector)


KEY: Final = _direction(-0.42, 0.72, 0.55)
FILL: Final = _direction(0.75, 0.25, 0.55)


def shade(
    base: Vectors,
    normal: Vectors,
    view: Vectors,
    *,
    metallic: float,
    roughness: float,
    openness: Vectors | float = 1.0,
    key: Vectors = KEY,
    fill: Vectors = FILL,
) -> Rgb:
    """Linear light from surfaces with linear colours `base` (n, 3), seen along unit vectors `view` (n, 3)."""
    facing = np.sum(normal * view, axis=1, keepdims=True)
    lit = (
        1.05 * np.clip(normal @ key * 0.85 + 0.15, 0, None)
        + 0.28 * np.clip(normal @ fill, 0, None)
        + 0.42 * (0.6 + 0.4 * normal[:, 1])
    )
    lit = (lit * openness)[:, None]
    mirror = _room(2 * facing * normal - view, key, roughness)
    gloss = (1 - roughness) ** 2
    edge = np.clip(1 - np.abs(facing), 0, 1) ** 5 * gloss
    shine = (0.04 * (1 - metallic) + base * metallic) * (1 - edge) + edge
    light = base * (1 - 0.85 * metallic) * lit + shine * mirror * (0.35 + 0.65 * lit / 1.4)
    return np.asarray(light, np.float32)


def _room(direction: Vectors, key: Vectors, roughness: float) -> Vectors:
    """Light from a studio: bright ceiling, softbox at the key light, dark floor; blurred by roughness."""
    up, toward = direction[:, 1], direction @ key
    sharp = 0.35 + 0.55 / (1 + np.exp(-up * 7)) + 2.6 / (1 + np.exp(-np.clip((toward - 0.86) * 40, -60, 60)))
    sharp = sharp + 0.8 * np.exp(-(((up - 0.02) / 0.16) ** 2))
    blurred = 0.75 + 0.4 * up + 0.9 * np.clip(toward, 0, 1) ** 3
    return (sharp * (1 - roughness) + blurred * roughness)[:, None]


def to_linear(srgb: Vectors) -> Rgb:
    return np.clip(srgb, 0, 1).astype(np.float32) ** np.float32(2.2)


def to_srgb(linear: Vectors) -> Rgb:
    """sRGB 0–1; a soft shoulder keeps highlights from clipping."""
    toned = np.where(linear > 0.8, 0.8 + 0.2 * np.tanh((linear - 0.8) * 3.0), linear)
    return np.asarray(np.clip(toned, 0, 1) ** (1 / 2.2), np.float32)
