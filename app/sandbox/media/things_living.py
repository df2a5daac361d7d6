"""Animals, people and plants, put together from simple solids."""

from collections.abc import Callable
from typing import Final

import numpy as np

from app.sandbox.media.sculpt import ACCENT, DARK, LIGHT, MAIN, SECOND, Builder, Rng, Solid


def creature(ears: str, *, tail: float, snout: float, slim: float = 1.0) -> Builder:
    def build(rng: Rng) -> list[Solid]:
        plump = float(rng.uniform(0.92, 1.08)) * slim
        head = 1.36 + float(rng.uniform(-0.04, 0.06))
        solids = [
            Solid("ellipsoid", (0, 0.55, 0), (0.46 * plump, 0.58, 0.44 * plump)),
            Solid("ellipsoid", (0, 0.60, 0.20), (0.29 * plump, 0.42, 0.30), LIGHT, 0.02),
            Solid("limb", (0.20, 0.55, 0.28), (0.03, -0.46, 0.12, 0.12, 0.11), MAIN, 0.05, mirrored=True),
            Solid("ellipsoid", (0.23, 0.09, 0.43), (0.13, 0.09, 0.17), SECOND, 0.03, mirrored=True),
            Solid("ellipsoid", (0.38 * plump, 0.24, 0.10), (0.20, 0.24, 0.30), MAIN, 0.06, mirrored=True),
            Solid("ellipsoid", (0.42 * plump, 0.08, 0.34), (0.13, 0.08, 0.19), SECOND, 0.03, mirrored=True),
            Solid("ellipsoid", (0, head, 0.10), (0.44, 0.39, 0.39), MAIN, 0.08),
            Solid("ellipsoid", (0.17, head - 0.13, 0.30), (0.18, 0.14, 0.16), LIGHT, 0.06, mirrored=True),
            Solid("limb", (0, head - 0.09, 0.38), (0, -0.03, snout, 0.15, 0.09), LIGHT, 0.07),
            Solid("ellipsoid", (0, head - 0.06, 0.45 + snout), (0.07, 0.055, 0.05), DARK, 0.01),
            Solid("ellipsoid", (0.17, head + 0.07, 0.425), (0.058, 0.07, 0.04), DARK, 0.005, mirrored=True),
        ]
        solids += _EARS[ears](head)
        if tail:
            solids.append(Solid("limb", (0.12, 0.22, -0.36), (0.52, 0.16, -0.10, 0.13, 0.19 * tail), MAIN, 0.08))
            solids.append(Solid("limb", (0.62, 0.38, -0.46), (0.10, 0.34, 0.0, 0.19 * tail, 0.05), SECOND, 0.05))
        return solids

    return build


_EARS: Final[dict[str, Callable[[float], list[Solid]]]] = {
    "pointed": lambda head: [
        Solid("cone", (0.27, head + 0.40, 0.06), (0.17, 0.22, 0.02), MAIN, 0.05, (0, 0, -16), mirrored=True),
        Solid("cone", (0.27, head + 0.37, 0.14), (0.10, 0.15, 0.01), SECOND, 0.01, (0, 0, -16), mirrored=True),
    ],
    "round": lambda head: [
        Solid("ellipsoid", (0.32, head + 0.31, 0.05), (0.16, 0.16, 0.09), MAIN, 0.04, mirrored=True),
        Solid("ellipsoid", (0.32, head + 0.31, 0.12), (0.09, 0.09, 0.05), SECOND, 0.01, mirrored=True),
    ],
    "long": lambda head: [
        Solid("ellipsoid", (0.18, head + 0.62, 0.02), (0.12, 0.38, 0.08), MAIN, 0.05, (0, 0, -9), mirrored=True),
        Solid("ellipsoid", (0.18, head + 0.62, 0.08), (0.06, 0.28, 0.05), SECOND, 0.01, (0, 0, -9), mirrored=True),
    ],
    "floppy": lambda head: [
        Solid("ellipsoid", (0.45, head - 0.06, 0.05), (0.11, 0.30, 0.17), SECOND, 0.04, (0, 0, 14), mirrored=True),
    ],
    "horned": lambda head: [
        Solid("limb", (0.22, head + 0.30, 0.02), (0.10, 0.34, -0.12, 0.09, 0.02), LIGHT, 0.03, mirrored=True),
        Solid("ellipsoid", (0.50, 1.00, -0.26), (0.50, 0.24, 0.06), SECOND, 0.03, (0, -18, 35), mirrored=True),
    ],
}


def bird(rng: Rng) -> list[Solid]:
    beak = float(rng.uniform(0.14, 0.26))
    return [
        Solid("ellipsoid", (0, 0.72, 0), (0.46, 0.55, 0.50)),
        Solid("ellipsoid", (0, 0.68, 0.20), (0.33, 0.42, 0.36), LIGHT, 0.03),
        Solid("ellipsoid", (0, 1.32, 0.10), (0.34, 0.33, 0.33), MAIN, 0.12),
        Solid("cone", (0, 1.29, 0.46), (0.11, beak, 0.01), ACCENT, 0.02, (-90, 0, 0)),
        Solid("ellipsoid", (0.18, 1.40, 0.36), (0.06, 0.07, 0.05), DARK, 0.005, mirrored=True),
        Solid("ellipsoid", (0.47, 0.74, -0.06), (0.10, 0.38, 0.30), SECOND, 0.03, (18, 0, 10), mirrored=True),
        Solid("box", (0, 0.44, -0.55), (0.16, 0.05, 0.30), SECOND, 0.06, (25, 0, 0)),
        Solid("limb", (0.15, 0.26, 0.05), (0, -0.20, 0.02, 0.04, 0.035), ACCENT, 0.01, mirrored=True),
        Solid("ellipsoid", (0.15, 0.04, 0.12), (0.10, 0.04, 0.16), ACCENT, 0.02, mirrored=True),
    ]


def fish(rng: Rng) -> list[Solid]:
    long = float(rng.uniform(0.78, 0.95))
    return [
        Solid("ellipsoid", (0, 0.9, 0), (long, 0.48, 0.30)),
        Solid("ellipsoid", (0.06, 0.76, 0), (long * 0.8, 0.33, 0.285), LIGHT, 0.06),
        Solid("ellipsoid", (-long - 0.10, 1.12, 0), (0.36, 0.16, 0.05), SECOND, 0.05, (0, 0, -42)),
        Solid("ellipsoid", (-long - 0.10, 0.68, 0), (0.36, 0.16, 0.05), SECOND, 0.05, (0, 0, 42)),
        Solid("ellipsoid", (-0.05, 1.40, 0), (0.36, 0.20, 0.05), SECOND, 0.06, (0, 0, -12)),
        Solid("ellipsoid", (0.02, 0.82, 0.31), (0.20, 0.10, 0.05), SECOND, 0.02, (0, 20, 30)),
        Solid("ellipsoid", (long * 0.62, 1.02, 0.20), (0.09, 0.09, 0.05), LIGHT, 0.005),
        Solid("ellipsoid", (long * 0.64, 1.02, 0.245), (0.05, 0.055, 0.03), DARK, 0.003),
    ]


def figure(rng: Rng) -> list[Solid]:
    wide = float(rng.uniform(0.95, 1.1))
    return [
        Solid("box", (0, 0.82, 0), (0.36 * wide, 0.36, 0.25), MAIN, 0.03, round=0.10),
        Solid("box", (0, 0.88, 0.22), (0.20, 0.15, 0.06), SECOND, 0.01, round=0.03),
        Solid("ellipsoid", (0.08, 0.90, 0.28), (0.04, 0.04, 0.03), ACCENT, 0.003, mirrored=True),
        Solid("cone", (0, 1.22, 0), (0.13, 0.06, 0.13), DARK, 0.01),
        Solid("box", (0, 1.53, 0), (0.38, 0.30, 0.31), MAIN, 0.02, round=0.12),
        Solid("box", (0, 1.53, 0.25), (0.29, 0.17, 0.09), DARK, 0.01, round=0.06),
        Solid("ellipsoid", (0.13, 1.55, 0.335), (0.065, 0.075, 0.03), ACCENT, 0.003, mirrored=True),
        Solid("limb", (0, 1.80, 0), (0, 0.20, 0, 0.025, 0.025), DARK, 0.01),
        Solid("ellipsoid", (0, 2.05, 0), (0.07, 0.07, 0.07), ACCENT, 0.01),
        Solid("ellipsoid", (0.40, 1.53, 0), (0.07, 0.13, 0.13), SECOND, 0.02, mirrored=True),
        Solid("limb", (0.44 * wide, 1.04, 0), (0.16, -0.40, 0.10, 0.11, 0.09), SECOND, 0.02, mirrored=True),
        Solid("ellipsoid", (0.62 * wide, 0.58, 0.12), (0.13, 0.13, 0.13), MAIN, 0.02, mirrored=True),
        Solid("limb", (0.18, 0.46, 0), (0.02, -0.28, 0, 0.13, 0.13), SECOND, 0.02, mirrored=True),
        Solid("box", (0.20, 0.09, 0.06), (0.16, 0.09, 0.24), MAIN, 0.02, mirrored=True, round=0.06),
    ]


def tree(rng: Rng) -> list[Solid]:
    solids = [Solid("limb", (0, 0, 0), (0.03, 0.95, 0, 0.17, 0.10), SECOND)]
    solids += [Solid("limb", (0.02, 0.62, 0), (side * 0.36, 0.34, 0.05, 0.07, 0.04), SECOND, 0.04) for side in (-1, 1)]
    for _ in range(7):
        x, z = rng.uniform(-0.45, 0.45, 2)
        y, radius = float(rng.uniform(1.15, 1.72)), float(rng.uniform(0.30, 0.42))
        solids.append(Solid("ellipsoid", (float(x), y, float(z)), (radius, radius * 0.9, radius), MAIN, 0.06))
    for _ in range(6):
        angle, y = rng.uniform(-1.1, 1.1), float(rng.uniform(1.05, 1.65))
        solids.append(
            Solid(
                "ellipsoid", (float(np.sin(angle)) * 0.66, y, float(np.cos(angle)) * 0.66), (0.075,) * 3, ACCENT, 0.01
            )
        )
    return solids


def pine(rng: Rng) -> list[Solid]:
    lean = float(rng.uniform(0.9, 1.1))
    return [
        Solid("cone", (0, 0.20, 0), (0.14, 0.22, 0.12), SECOND),
        *(
            Solid("cone", (0, 0.62 + 0.42 * k, 0), ((0.74 - 0.15 * k) * lean, 0.34, 0.05), MAIN, 0.03, round=0.06)
            for k in range(4)
        ),
        Solid("ellipsoid", (0, 2.28, 0), (0.09, 0.09, 0.09), ACCENT, 0.01),
    ]


def flower(rng: Rng) -> list[Solid]:
    count = int(rng.integers(6, 10))
    petals = [
        Solid(
            "ellipsoid",
            (np.sin(a) * 0.38, 1.55 + np.cos(a) * 0.38, 0.06),
            (0.17, 0.30, 0.07),
            MAIN,
            0.01,
            (0, 0, -float(np.degrees(a))),
        )
        for a in np.arange(count) * 2 * np.pi / count
    ]
    return [
        Solid("cone", (0, 0.20, 0), (0.28, 0.22, 0.36), ACCENT, round=0.04),
        Solid("torus", (0, 0.42, 0), (0.33, 0.06), ACCENT, 0.01),
        Solid("limb", (0, 0.40, 0), (0, 1.15, 0, 0.05, 0.045), SECOND, 0.01),
        Solid("ellipsoid", (0.25, 0.82, 0.02), (0.27, 0.09, 0.05), SECOND, 0.03, (0, 0, 32)),
        Solid("ellipsoid", (-0.24, 0.98, 0.02), (0.25, 0.09, 0.05), SECOND, 0.03, (0, 0, -34)),
        *petals,
        Solid("ellipsoid", (0, 1.55, 0.12), (0.20, 0.20, 0.11), ACCENT, 0.01),
    ]


def mushroom(rng: Rng) -> list[Solid]:
    wide = float(rng.uniform(0.72, 0.88))
    spots = [
        Solid(
            "ellipsoid",
            (np.sin(a) * wide * r, 1.16 + 0.50 * (1 - r * r) ** 0.5, np.cos(a) * wide * r),
            (0.12, 0.06, 0.12),
            LIGHT,
            0.02,
            (float(np.cos(a)) * 60 * r, 0, -float(np.sin(a)) * 60 * r),
        )
        for a, r in ((0.2, 0.55), (1.4, 0.7), (-0.9, 0.6), (2.6, 0.5), (0.3, 0.88), (-1.9, 0.72), (0.0, 0.05))
    ]
    return [
        Solid("cone", (0, 0.55, 0), (0.30, 0.55, 0.22), LIGHT, round=0.10),
        Solid("torus", (0, 0.86, 0), (0.26, 0.06), LIGHT, 0.05),
        Solid("ellipsoid", (0, 1.16, 0), (wide, 0.52, wide), MAIN, 0.03),
        Solid("box", (0, 0.70, 0), (1.2, 0.38, 1.2), LIGHT, carve=True, round=0.0),
        Solid("cone", (0, 0.55, 0), (0.30, 0.56, 0.20), LIGHT, 0.06, round=0.10),
        *spots,
    ]


def cactus(rng: Rng) -> list[Solid]:
    arm = float(rng.uniform(0.85, 1.05))
    return [
        Solid("cone", (0, 0.24, 0), (0.30, 0.26, 0.42), SECOND, round=0.05),
        Solid("limb", (0, 0.45, 0), (0, 1.15, 0, 0.30, 0.26), MAIN, 0.01),
        Solid("limb", (0.2, arm, 0), (0.40, 0.04, 0, 0.14, 0.14), MAIN, 0.05),
        Solid("limb", (0.60, arm + 0.04, 0), (0, 0.36, 0, 0.14, 0.12), MAIN, 0.05),
        Solid("limb", (-0.2, arm - 0.14, 0), (-0.36, 0.04, 0, 0.13, 0.13), MAIN, 0.05),
        Solid("limb", (-0.56, arm - 0.10, 0), (0, 0.28, 0, 0.13, 0.11), MAIN, 0.05),
        Solid("ellipsoid", (0.06, 1.90, 0.04), (0.14, 0.10, 0.14), ACCENT, 0.02),
    ]


def fruit(rng: Rng) -> list[Solid]:
    tall = float(rng.uniform(0.9, 1.05))
    return [
        Solid("ellipsoid", (0.14, 0.68, 0), (0.58, 0.64 * tall, 0.64), MAIN),
        Solid("ellipsoid", (-0.14, 0.68, 0), (0.58, 0.64 * tall, 0.64), MAIN, 0.2),
        Solid("ellipsoid", (0, 1.40, 0), (0.16, 0.22, 0.16), SECOND, carve=True),
        Solid("limb", (0, 1.10, 0), (0.08, 0.40, 0, 0.04, 0.05), DARK, 0.02),
        Solid("ellipsoid", (0.32, 1.46, 0.03), (0.26, 0.11, 0.05), SECOND, 0.01, (0, 15, 22)),
    ]


def snowman(rng: Rng) -> list[Solid]:
    arm = float(rng.uniform(0.1, 0.4))
    return [
        Solid("ellipsoid", (0, 0.50, 0), (0.60, 0.52, 0.58), LIGHT),
        Solid("ellipsoid", (0, 1.20, 0), (0.44, 0.40, 0.42), LIGHT, 0.03),
        Solid("ellipsoid", (0, 1.74, 0), (0.32, 0.30, 0.31), LIGHT, 0.03),
        Solid("torus", (0, 1.50, 0), (0.29, 0.085), MAIN, 0.01),
        Solid("limb", (0.20, 1.46, 0.28), (0.06, -0.40, 0.10, 0.09, 0.08), MAIN, 0.02),
        Solid("cone", (0, 1.74, 0.45), (0.07, 0.18, 0.01), SECOND, 0.005, (-90, 0, 0)),
        Solid("ellipsoid", (0.11, 1.84, 0.27), (0.045, 0.045, 0.03), DARK, 0.003, mirrored=True),
        *(Solid("ellipsoid", (0, y, z), (0.05, 0.05, 0.04), DARK, 0.003) for y, z in ((1.05, 0.42), (1.28, 0.41))),
        Solid("limb", (0.36, 1.24, 0), (0.48, arm, 0.05, 0.035, 0.02), DARK, 0.01, mirrored=True),
        Solid("cone", (0, 2.02, 0), (0.42, 0.035, 0.42), DARK, 0.01),
        Solid("cone", (0, 2.24, 0), (0.26, 0.22, 0.28), DARK, 0.01),
        Solid("cone", (0, 2.08, 0), (0.275, 0.05, 0.275), MAIN, 0.004),
    ]
