"""What every look works on: the picture, its subject, its relief, and what the prompt wants."""

from dataclasses import dataclass

import cv2
import numpy as np

from app.sandbox.media.arrays import Field, Rgb, Vectors
from app.sandbox.media.noise import mix
from app.sandbox.media.words import Colour, Wish


@dataclass(frozen=True, slots=True)
class Canvas:
    rgb: Rgb
    """sRGB 0–1, shape (h, w, 3); the subject's colours go on a little beyond its edge."""
    alpha: Field
    """1 on the subject; 1 everywhere for a whole scene."""
    relief: Field
    """Height of the inflated subject in pixels."""
    wish: Wish
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.alpha.shape[1], self.alpha.shape[0]

    @property
    def unit(self) -> float:
        """A thousandth of the shorter side in pixels: what strokes and blurs are measured in."""
        return min(self.alpha.shape) / 1000

    def seed_for(self, purpose: int) -> int:
        return mix(self.wish.key, self.seed, purpose)


@dataclass(frozen=True, slots=True)
class Painted:
    rgb: Rgb
    alpha: Field


def tinted(canvas: Canvas, rgb: Rgb) -> Rgb:
    """The picture in the prompt's colours: named ones take over, other words turn the hues a little."""
    lab = np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2LAB), np.float32)
    weight = canvas.alpha[..., None] + 1e-4
    if canvas.wish.colours:
        lab = _toward(lab, weight, [_lab_of(colour) for colour in canvas.wish.colours[:3]])
    else:
        rng = np.random.default_rng([canvas.wish.key, canvas.seed & 0xFFFFFFFF, 11])
        angle = float(rng.uniform(0.12, 0.5)) * (1 if rng.random() < 0.5 else -1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], np.float32)
        lab[..., 1:] = (lab[..., 1:] * float(rng.uniform(0.95, 1.3))) @ turn + rng.normal(0, 4.5, 2).astype(np.float32)
    return np.clip(np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32), 0, 1)


def _toward(lab: Rgb, weight: Field, targets: list[Vectors]) -> Rgb:
    mean = (lab * weight).sum(axis=(0, 1)) / weight.sum()
    spread = np.sqrt((((lab - mean) ** 2) * weight).sum(axis=(0, 1)) / weight.sum()) + 1e-3
    # Dark parts take the first colour, lighter parts the next ones.
    level = np.clip((lab[..., 0] - mean[0]) / (2.2 * spread[0]) + 0.5, 0, 1)
    stops = np.linspace(0, 1, len(targets)) if len(targets) > 1 else np.array([0.5])
    wanted = np.stack([np.interp(level, stops, [target[axis] for target in targets]) for axis in range(3)], axis=-1)
    light = lab[..., 0] - mean[0] + 0.55 * mean[0] + 0.45 * wanted[..., 0]
    colour = wanted[..., 1:] * (0.55 + 0.45 * np.clip(lab[..., :1] / 70, 0, 1.2)) + (lab[..., 1:] - mean[1:]) * 0.25
    return np.concatenate([np.clip(light, 0, 100)[..., None], colour], axis=-1).astype(np.float32)


def _lab_of(colour: Colour) -> Vectors:
    return np.asarray(cv2.cvtColor(np.array([[colour]], np.float32), cv2.COLOR_RGB2LAB), np.float32)[0, 0]
