"""Smooth randomness with a seed: the same numbers give the same grain, everywhere."""

import cv2
import numpy as np

from app.sandbox.media.arrays import Field, Vectors


def mix(*parts: int) -> int:
    """One 32-bit seed from several numbers."""
    return int(np.random.SeedSequence([part & 0xFFFFFFFFFFFFFFFF for part in parts]).generate_state(1)[0])


def clouds(size: tuple[int, int], *, cell: float, octaves: int, seed: int) -> Field:
    """Noise of `size` (width, height), -1…1, whose largest features are about `cell` pixels wide."""
    width, height = size
    rng = np.random.default_rng(seed & 0xFFFFFFFF)
    total = np.zeros((height, width), np.float32)
    weight, reach = 1.0, 0.0
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        grid = rng.uniform(-1, 1, (int(height / step) + 3, int(width / step) + 3)).astype(np.float32)
        matrix = np.array([[1 / step, 0, 0.5], [0, 1 / step, 0.5]])
        total += weight * np.asarray(
            cv2.warpAffine(
                grid,
                matrix,
                (width, height),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        )
        reach += weight
        weight *= 0.5
    return np.clip(total / reach * 1.4, -1, 1)


def noise3(points: Vectors, *, seed: int, octaves: int = 1) -> Field:
    """Value noise at points (n, 3), -1…1; features are one unit wide."""
    total = np.zeros(len(points), np.float32)
    weight, reach, place = 1.0, 0.0, points.astype(np.float32)
    for octave in range(octaves):
        total += weight * _lattice(place, mix(seed, octave))
        reach += weight
        weight, place = weight * 0.5, place * 2.03
    return total / reach


def _lattice(points: Field, seed: int) -> Field:
    floor = np.floor(points)
    part = points - floor
    part = part * part * (3 - 2 * part)
    cell = floor.astype(np.int64).astype(np.uint32)
    factors = np.array([0x8DA6B343, 0xD8163841, 0xCB1AB31F], np.uint32)
    low = cell * factors + np.uint32(seed)
    high = low + factors
    total = np.zeros(len(points), np.float32)
    for corner in range(8):
        code = np.zeros(len(points), np.uint32)
        weight = np.ones(len(points), np.float32)
        for axis in range(3):
            far = corner >> axis & 1
            code ^= (high if far else low)[:, axis]
            weight *= part[:, axis] if far else 1 - part[:, axis]
        code = (code ^ (code >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        code = (code ^ (code >> np.uint32(12))) * np.uint32(0x297A2D39)
        total += weight * ((code >> np.uint32(8)).astype(np.float32) * np.float32(2 / 0xFFFFFF) - 1)
    return total
