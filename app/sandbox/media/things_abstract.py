"""Signs and shapes, and the figure for words that name nothing known."""

import numpy as np

from app.sandbox.media.sculpt import ACCENT, DARK, MAIN, SECOND, Rng, Solid


def gem(rng: Rng) -> list[Solid]:
    solids = [Solid("cone", (0, 0.10, 0), (0.66, 0.12, 0.50), DARK, round=0.06)]
    for _ in range(7):
        x, z = rng.uniform(-0.36, 0.36, 2)
        tall, girth = float(rng.uniform(0.35, 0.95)), float(rng.uniform(0.11, 0.22))
        turn = (float(z) * 55, float(rng.uniform(0, 90)), -float(x) * 55)
        solids.append(
            Solid(
                "box",
                (float(x) * 1.3, tall, float(z) * 1.3),
                (girth, tall, girth),
                int(rng.integers(0, 3)),
                0.005,
                turn,
                round=0.01,
            )
        )
    return solids


def star(rng: Rng) -> list[Solid]:
    arms = [
        Solid("limb", (0, 1.0, 0), (np.sin(a) * 0.80, np.cos(a) * 0.80, 0, 0.34, 0.06), MAIN, 0.08)
        for a in np.arange(5) * 2 * np.pi / 5
    ]
    gaze = float(rng.uniform(0.10, 0.16))
    return [
        *arms,
        Solid("ellipsoid", (gaze, 1.08, 0.33), (0.05, 0.08, 0.04), DARK, 0.004, mirrored=True),
        Solid("ellipsoid", (0.26, 0.94, 0.28), (0.07, 0.045, 0.03), ACCENT, 0.01, mirrored=True),
    ]


def heart(rng: Rng) -> list[Solid]:
    puff = float(rng.uniform(0.30, 0.40))
    return [
        Solid("ellipsoid", (0.27, 1.05, 0), (0.41, 0.78, puff), MAIN, 0.12, (0, 0, -33), mirrored=True),
    ]


def globe(rng: Rng) -> list[Solid]:
    lands = []
    for _ in range(9):
        toward = rng.normal(size=3)
        toward = toward / np.linalg.norm(toward) * 0.74
        x, y, z = (float(one) for one in toward)
        lands.append(
            Solid(
                "ellipsoid",
                (x, 1 + y, z),
                (float(rng.uniform(0.15, 0.34)), float(rng.uniform(0.15, 0.3)), 0.26),
                SECOND,
                0.01,
            )
        )
    ring = [Solid("torus", (0, 1.0, 0), (1.15, 0.045), ACCENT, 0.01, (16, 0, 14))] if rng.random() < 0.6 else []
    return [Solid("ellipsoid", (0, 1.0, 0), (0.80, 0.80, 0.80)), *lands, *ring]


def totem(rng: Rng) -> list[Solid]:
    """For words that name nothing known: a stack of shapes that only this prompt has."""
    solids: list[Solid] = []
    low = 0.0
    kinds = ("ellipsoid", "box", "cone", "torus")
    for index in range(int(rng.integers(3, 6))):
        kind = kinds[int(rng.integers(0, 3 if index == 0 else 4))]
        girth, tall = float(rng.uniform(0.30, 0.66)) * (1 - 0.09 * index), float(rng.uniform(0.17, 0.36))
        turn = (0.0, float(rng.uniform(0, 90)), float(rng.normal(0, 5)))
        middle = (0.0, low + tall, 0.0)
        match kind:
            case "ellipsoid":
                size: tuple[float, ...] = (girth, tall * 1.1, girth * float(rng.uniform(0.8, 1.1)))
            case "box":
                size = (girth * 0.82, tall, girth * 0.82)
            case "cone":
                size = (girth, tall, girth * float(rng.uniform(0.3, 0.95)))
            case _:
                size, tall = (girth * 0.72, 0.15), 0.13
                middle = (0.0, low + tall, 0.0)
        solids.append(Solid(kind, middle, size, int(rng.integers(0, 3)), 0.05, turn, round=0.07))
        low += tall * 1.86
    for _ in range(int(rng.integers(2, 5))):
        up, out = float(rng.uniform(0.25, 0.9)) * low, float(rng.uniform(0.45, 0.8))
        size = (out, float(rng.uniform(-0.1, 0.4)), 0.1, 0.11, 0.06)
        solids.append(Solid("limb", (0.12, up, 0.0), size, int(rng.integers(0, 5)), 0.05, mirrored=True))
    solids.append(Solid("ellipsoid", (0, low + 0.08, 0), (0.15, 0.17, 0.15), ACCENT, 0.04))
    return solids
