"""Vehicles, buildings, vessels, furniture and food, put together from simple solids."""

import numpy as np

from app.sandbox.media.sculpt import ACCENT, DARK, LIGHT, MAIN, SECOND, Rng, Solid


def car(rng: Rng) -> list[Solid]:
    cabin = float(rng.uniform(0.44, 0.56))
    wheels = [
        Solid("cone", (0.50 * side, 0.24, z), (radius, half, radius), colour, 0.005, (90, 0, 0))
        for side in (1.25, -1.1)
        for z in (0.42, -0.42)
        for radius, half, colour in ((0.26, 0.09, DARK), (0.14, 0.115, LIGHT))
    ]
    return [
        Solid("box", (0, 0.46, 0), (1.08, 0.24, 0.44), MAIN, round=0.14),
        Solid("box", (-0.08, 0.82, 0), (cabin, 0.24, 0.37), MAIN, 0.12, round=0.14),
        Solid("box", (-0.08, 0.84, 0.30), (cabin - 0.10, 0.14, 0.09), DARK, 0.01, round=0.04),
        Solid("box", (cabin - 0.06, 0.82, 0), (0.07, 0.15, 0.29), DARK, 0.01, (0, 0, 24), round=0.04),
        Solid("box", (0, 0.36, 0.43), (1.02, 0.035, 0.02), SECOND, 0.01, round=0.01),
        Solid("ellipsoid", (1.05, 0.52, 0.27), (0.06, 0.09, 0.09), LIGHT, 0.005),
        Solid("ellipsoid", (1.05, 0.52, -0.27), (0.06, 0.09, 0.09), LIGHT, 0.005),
        Solid("box", (1.06, 0.32, 0), (0.06, 0.05, 0.42), SECOND, 0.01),
        *wheels,
    ]


def boat(rng: Rng) -> list[Solid]:
    mast = float(rng.uniform(0.68, 0.82))
    return [
        Solid("ellipsoid", (0, 0.46, 0), (1.12, 0.46, 0.42)),
        Solid("box", (0, 0.88, 0), (1.4, 0.36, 0.8), SECOND, carve=True, round=0.0),
        Solid("ellipsoid", (0, 0.58, 0), (0.94, 0.30, 0.31), SECOND, carve=True),
        Solid("torus", (0, 0.50, 0), (0.28, 0.03), SECOND, 0.01),
        Solid("box", (0.35, 0.46, 0), (0.07, 0.03, 0.34), SECOND, 0.01),
        Solid("box", (-0.40, 0.46, 0), (0.07, 0.03, 0.34), SECOND, 0.01),
        Solid("limb", (-0.05, 0.20, 0), (0, 2 * mast, 0, 0.045, 0.03), SECOND, 0.01),
        Solid("ellipsoid", (0.34, 0.62 + mast * 0.75, 0.04), (0.34, mast * 0.66, 0.05), LIGHT, 0.01, (0, 12, 14)),
        Solid("ellipsoid", (-0.32, 0.58 + mast * 0.62, 0.03), (0.24, mast * 0.52, 0.04), LIGHT, 0.01, (0, -8, -12)),
        Solid("limb", (-0.42, 0.70, 0), (0.92, 0, 0, 0.035, 0.035), SECOND, 0.01),
        Solid("box", (0.07, 0.24 + 2 * mast, 0), (0.11, 0.06, 0.012), ACCENT, 0.005, round=0.01),
    ]


def rocket(rng: Rng) -> list[Solid]:
    slim = float(rng.uniform(0.36, 0.44))
    fins = [
        Solid(
            "box",
            (np.sin(a) * slim * 1.2, 0.42, np.cos(a) * slim * 1.2),
            (0.04, 0.30, 0.22),
            SECOND,
            0.03,
            (18, float(np.degrees(a)), 0),
            round=0.03,
        )
        for a in (0.5, 0.5 + 2 * np.pi / 3, 0.5 + 4 * np.pi / 3)
    ]
    return [
        Solid("ellipsoid", (0, 1.05, 0), (slim, 0.98, slim), LIGHT),
        Solid("ellipsoid", (0, 1.78, 0), (slim * 0.62, 0.42, slim * 0.62), MAIN, 0.02),
        Solid("cone", (0, 0.16, 0), (slim * 0.68, 0.12, slim * 0.5), DARK, 0.02),
        Solid("torus", (0, 1.25, slim * 0.93), (0.15, 0.045), SECOND, 0.01, (90, 0, 0)),
        Solid("ellipsoid", (0, 1.25, slim * 0.92), (0.13, 0.13, 0.05), ACCENT, 0.005),
        Solid("torus", (0, 0.72, 0), (slim * 0.92, 0.04), MAIN, 0.02),
        *fins,
    ]


def plane(rng: Rng) -> list[Solid]:
    span = float(rng.uniform(0.95, 1.15))
    return [
        Solid("limb", (-0.85, 0.98, 0), (1.45, -0.06, 0, 0.14, 0.26)),
        Solid("ellipsoid", (0.66, 0.93, 0), (0.26, 0.25, 0.25), SECOND, 0.03),
        Solid("box", (0.15, 0.90, 0), (0.26, 0.035, span), SECOND, 0.05, (0, 0, 4), round=0.03),
        Solid("box", (-0.86, 1.02, 0), (0.15, 0.03, 0.40), SECOND, 0.03, round=0.02),
        Solid("box", (-0.90, 1.24, 0), (0.15, 0.26, 0.035), MAIN, 0.05, (0, 0, 14), round=0.03),
        Solid("ellipsoid", (0.20, 1.17, 0), (0.28, 0.17, 0.16), DARK, 0.02),
        Solid("ellipsoid", (0.93, 0.92, 0), (0.08, 0.07, 0.07), ACCENT, 0.01),
        Solid("box", (0.96, 0.92, 0), (0.02, 0.42, 0.05), DARK, 0.01, (35, 0, 0), round=0.01),
        Solid("cone", (0.30, 0.55, 0.28), (0.12, 0.05, 0.12), DARK, 0.01, (90, 0, 0)),
        Solid("cone", (0.30, 0.55, -0.28), (0.12, 0.05, 0.12), DARK, 0.01, (90, 0, 0)),
    ]


def house(rng: Rng) -> list[Solid]:
    wide = float(rng.uniform(0.66, 0.80))
    return [
        Solid("box", (0, 0.50, 0), (wide, 0.50, 0.58), LIGHT, round=0.03),
        Solid("box", (0, 1.14, 0), (0.52, 0.52, 0.66), MAIN, 0.01, (0, 0, 45), round=0.05),
        Solid("box", (0, 0.02, 0), (wide + 0.08, 0.05, 0.66), DARK, 0.01, round=0.02),
        Solid("box", (0, 0.34, 0.58), (0.16, 0.32, 0.03), SECOND, 0.005, round=0.02),
        Solid("ellipsoid", (0.09, 0.34, 0.63), (0.025, 0.025, 0.025), ACCENT, 0.002),
        Solid("box", (0.42, 0.58, 0.58), (0.13, 0.15, 0.025), ACCENT, 0.005, mirrored=True, round=0.015),
        Solid("box", (0.42, 0.58, 0.60), (0.14, 0.015, 0.02), LIGHT, 0.002, mirrored=True, round=0.008),
        Solid("box", (wide + 0.0, 0.58, 0.0), (0.025, 0.15, 0.16), ACCENT, 0.005, round=0.015),
        Solid("box", (0.40, 1.50, -0.20), (0.11, 0.30, 0.11), SECOND, 0.01, round=0.02),
    ]


def castle(rng: Rng) -> list[Solid]:
    solids = [
        Solid("box", (0, 0.45, 0), (0.74, 0.45, 0.52), MAIN, round=0.02),
        Solid("box", (0, 0.28, 0.52), (0.18, 0.26, 0.05), DARK, 0.005, round=0.02),
        Solid("ellipsoid", (0, 0.54, 0.52), (0.18, 0.16, 0.06), DARK, 0.01),
        Solid("cone", (0, 1.02, -0.05), (0.34, 0.50, 0.30), MAIN, 0.02),
        Solid("cone", (0, 1.78, -0.05), (0.42, 0.30, 0.02), SECOND, 0.01),
        Solid("limb", (0, 2.05, -0.05), (0, 0.24, 0, 0.02, 0.02), DARK, 0.005),
        Solid("box", (0.10, 2.24, -0.05), (0.10, 0.06, 0.012), ACCENT, 0.003, round=0.01),
    ]
    for z, tall in ((0.46, float(rng.uniform(0.62, 0.74))), (-0.46, float(rng.uniform(0.72, 0.84)))):
        solids += [
            Solid("cone", (0.74, tall, z), (0.24, tall, 0.22), MAIN, 0.02, mirrored=True),
            Solid("cone", (0.74, 2 * tall + 0.20, z), (0.31, 0.24, 0.02), SECOND, 0.01, mirrored=True),
            Solid("box", (0.74, tall * 1.35, z + 0.21), (0.05, 0.10, 0.03), DARK, 0.003, mirrored=True, round=0.02),
        ]
    solids += [Solid("box", (x, 0.96, 0.47), (0.07, 0.08, 0.06), MAIN, 0.005, mirrored=True) for x in (0.14, 0.40)]
    return solids


def cup(rng: Rng) -> list[Solid]:
    flare = float(rng.uniform(0.0, 0.14))
    return [
        Solid("cone", (0, 0.72, 0), (0.52 - flare, 0.58, 0.56 + flare / 2), MAIN, round=0.05),
        Solid("torus", (0.58, 0.76, 0), (0.30, 0.075), SECOND, 0.05, (90, 0, 0)),
        Solid("cone", (0, 0.86, 0), (0.44 - flare, 0.60, 0.49 + flare / 2), LIGHT, carve=True, round=0.02),
        Solid("cone", (0, 0.60, 0), (0.40 - flare, 0.50, 0.47 + flare / 2), DARK, 0.004, round=0.01),
        Solid("torus", (0, 0.46, 0), (0.55 - flare * 0.5, 0.035), ACCENT, 0.02),
    ]


def vessel(rng: Rng) -> list[Solid]:
    """A vase of its own outline: bulbs of different girth, one above the other."""
    solids: list[Solid] = []
    low = 0.0
    count = int(rng.integers(3, 5))
    for index in range(count):
        tall = float(rng.uniform(0.28, 0.5))
        girth = float(rng.uniform(0.26, 0.62)) * (0.72 if index == count - 1 else 1.0)
        solids.append(
            Solid(
                "ellipsoid", (0, low + tall * 0.75, 0), (girth, tall, girth), (MAIN, SECOND, MAIN, ACCENT)[index], 0.16
            )
        )
        low += tall * 1.05
    return [
        Solid("cone", (0, 0.06, 0), (0.34, 0.07, 0.30), MAIN),
        *solids,
        Solid("cone", (0, low + 0.24, 0), (0.17, 0.17, 0.27), MAIN, 0.06),
        Solid("cone", (0, low + 0.38, 0), (0.09, 0.24, 0.20), DARK, carve=True, round=0.01),
        Solid("torus", (0, low * 0.62, 0), (0.40, 0.03), ACCENT, 0.06),
    ]


def bottle(rng: Rng) -> list[Solid]:
    girth = float(rng.uniform(0.34, 0.46))
    return [
        Solid("cone", (0, 0.62, 0), (girth, 0.62, girth), MAIN, round=0.10),
        Solid("ellipsoid", (0, 1.22, 0), (girth * 0.96, 0.30, girth * 0.96), MAIN, 0.08),
        Solid("cone", (0, 1.62, 0), (0.17, 0.28, 0.13), MAIN, 0.10),
        Solid("cone", (0, 1.94, 0), (0.16, 0.10, 0.16), ACCENT, 0.01),
        Solid("cone", (0, 0.66, 0), (girth + 0.012, 0.30, girth + 0.012), LIGHT, 0.004, round=0.02),
        Solid("box", (0, 0.68, girth), (0.14, 0.14, 0.03), SECOND, 0.006),
    ]


def chair(rng: Rng) -> list[Solid]:
    tall = float(rng.uniform(0.52, 0.66))
    legs = [
        Solid("limb", (0.40, 0, z), (-0.03, 0.72, 0, 0.05, 0.06), SECOND, 0.02, mirrored=True) for z in (0.36, -0.36)
    ]
    slats = [
        Solid("box", (x, 0.86 + tall, -0.42), (0.055, tall, 0.035), SECOND, 0.01, (-6, 0, 0))
        for x in (-0.22, 0.0, 0.22)
    ]
    return [
        *legs,
        *slats,
        Solid("box", (0, 0.76, 0), (0.52, 0.07, 0.48), SECOND, 0.02, round=0.04),
        Solid("box", (0, 0.86, 0.02), (0.46, 0.07, 0.42), MAIN, 0.01, round=0.06),
        Solid("limb", (0.42, 0.72, -0.40), (0.02, 2 * tall, -0.10, 0.055, 0.05), SECOND, 0.02, mirrored=True),
        Solid("box", (0, 0.84 + 2 * tall, -0.50), (0.52, 0.10, 0.06), SECOND, 0.02, round=0.05),
    ]


def table(rng: Rng) -> list[Solid]:
    wide = float(rng.uniform(0.82, 1.0))
    legs = [
        Solid("limb", (wide - 0.1, 0, z), (-0.08, 0.88, 0, 0.05, 0.08), SECOND, 0.02, mirrored=True)
        for z in (0.42, -0.42)
    ]
    return [
        Solid("box", (0, 0.95, 0), (wide, 0.07, 0.56), MAIN, 0.01, round=0.05),
        *legs,
        Solid("box", (0, 0.83, 0), (wide - 0.12, 0.07, 0.46), SECOND, 0.01, round=0.02),
        Solid("cone", (0.25, 1.20, 0), (0.10, 0.20, 0.14), ACCENT, 0.01),
        Solid("ellipsoid", (-0.32, 1.10, 0.1), (0.13, 0.12, 0.13), LIGHT, 0.005),
    ]


def lamp(rng: Rng) -> list[Solid]:
    shade = float(rng.uniform(0.46, 0.6))
    return [
        Solid("cone", (0, 0.08, 0), (0.42, 0.08, 0.36), SECOND),
        Solid("limb", (0, 0.1, 0), (0, 1.2, 0, 0.05, 0.05), SECOND, 0.05),
        Solid("ellipsoid", (0, 0.48, 0), (0.20, 0.26, 0.20), ACCENT, 0.06),
        Solid("cone", (0, 1.48, 0), (shade, 0.36, shade * 0.58), MAIN, 0.01),
        Solid("torus", (0, 1.13, 0), (shade - 0.02, 0.03), LIGHT, 0.01),
        Solid("torus", (0, 1.83, 0), (shade * 0.57, 0.03), LIGHT, 0.01),
    ]


def cake(rng: Rng) -> list[Solid]:
    drops = [
        Solid(
            "ellipsoid",
            (np.sin(a) * 0.70, 0.52, np.cos(a) * 0.70),
            (0.10, float(rng.uniform(0.12, 0.24)), 0.08),
            LIGHT,
            0.04,
        )
        for a in np.arange(11) * 2 * np.pi / 11
    ]
    return [
        Solid("cone", (0, 0.32, 0), (0.72, 0.32, 0.70), MAIN, round=0.06),
        *drops,
        Solid("cone", (0, 0.64, 0), (0.73, 0.06, 0.71), LIGHT, 0.04, round=0.05),
        Solid("cone", (0, 0.92, 0), (0.46, 0.24, 0.44), SECOND, 0.01, round=0.06),
        Solid("cone", (0, 1.16, 0), (0.47, 0.05, 0.45), LIGHT, 0.03, round=0.04),
        Solid("ellipsoid", (0, 1.36, 0), (0.16, 0.16, 0.16), ACCENT, 0.01),
        Solid("limb", (0, 1.50, 0), (0.05, 0.18, 0, 0.018, 0.018), DARK, 0.01),
    ]


def donut(rng: Rng) -> list[Solid]:
    sprinkles = [
        Solid(
            "limb",
            (np.sin(a) * r, 0.80, np.cos(a) * r),
            (float(rng.uniform(-0.08, 0.08)), 0.0, 0.07, 0.028, 0.028),
            int(c),
            0.004,
        )
        for a, r, c in zip(rng.uniform(0, 6.28, 26), rng.uniform(0.46, 0.8, 26), rng.integers(2, 5, 26), strict=True)
    ]
    return [
        Solid("torus", (0, 0.46, 0), (0.62, 0.34), SECOND),
        Solid("torus", (0, 0.52, 0), (0.62, 0.315), MAIN, 0.01),
        *sprinkles,
    ]


def sword(rng: Rng) -> list[Solid]:
    guard = float(rng.uniform(0.34, 0.46))
    return [
        Solid("box", (0, 1.36, 0), (0.13, 0.78, 0.035), LIGHT, round=0.02),
        Solid("box", (0, 2.13, 0), (0.098, 0.098, 0.03), LIGHT, 0.01, (0, 0, 45), round=0.02),
        Solid("box", (0, 1.30, 0.02), (0.03, 0.64, 0.03), SECOND, 0.005, round=0.01),
        Solid("limb", (-guard, 0.58, 0), (2 * guard, 0, 0, 0.07, 0.07), ACCENT, 0.01),
        Solid("ellipsoid", (guard, 0.58, 0), (0.10, 0.10, 0.10), ACCENT, 0.02, mirrored=True),
        Solid("limb", (0, 0.16, 0), (0, 0.38, 0, 0.075, 0.07), MAIN, 0.01),
        Solid("ellipsoid", (0, 0.10, 0), (0.13, 0.13, 0.13), ACCENT, 0.01),
    ]
