"""What a prompt asks for, read from its words: a look, a material, colours, and a number of its own.

Words that no table knows are not lost: they go into `key`, which shifts palette, light and texture, so two
prompts never give the same picture.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

Colour: TypeAlias = tuple[float, float, float]
"""sRGB, 0–1."""

_HEX_PER_COLOUR: Final[dict[str, str]] = {
    "red": "d0342c", "crimson": "b0122d", "scarlet": "e3262e", "maroon": "6e1423", "orange": "ee7d24",
    "amber": "f2a71b", "yellow": "f4cf3a", "gold": "d8a532", "golden": "d8a532", "lime": "a4d233",
    "green": "3f9a4c", "emerald": "0f9d6b", "olive": "7d7f35", "mint": "9fdcc0", "teal": "1c8c8c",
    "turquoise": "35bfb8", "cyan": "2cc5de", "aqua": "4bd1d1", "blue": "2f68c8", "navy": "1d2f5f",
    "azure": "3a8fe0", "indigo": "40408f", "purple": "7a3fa0", "violet": "8a52cc", "lilac": "bd9bd8",
    "lavender": "b9a6e0", "magenta": "cf2f94", "pink": "f08fb2", "rose": "e0668a", "coral": "f5775d",
    "peach": "f8b98f", "salmon": "f58c79", "brown": "7d5232", "chocolate": "573420", "tan": "c9a273",
    "beige": "e2d2b0", "cream": "f3e8cc", "ivory": "f4eedd", "white": "f2f1ee", "silver": "bfc4c9",
    "grey": "8d9196", "gray": "8d9196", "charcoal": "3d4247", "black": "26272b",
}  # fmt: skip

_WORDS_PER_LOOK: Final[dict[str, str]] = {
    "watercolor": "watercolor watercolour aquarelle gouache wash",
    "ink": "ink sketch pencil drawing drawn lineart line etching engraving charcoal manga blueprint doodle",
    "lowpoly": "lowpoly polygon polygonal poly faceted origami geometric crystal",
    "pixel": "pixel pixelart pixelated 8bit voxel lego retro blocky minecraft",
    "neon": "neon cyberpunk glowing glow synthwave vaporwave hologram holographic laser electric",
    "oil": "oil painting painted painterly impressionist impasto canvas brush acrylic gogh",
    "cartoon": "cartoon comic anime cel toon flat vector sticker pop ghibli disney",
    "mosaic": "mosaic stained tile tiles tessellated",
    "clay": "clay plasticine claymation toy figurine figure 3d render pixar cute miniature vinyl plastic rubber",
    "photo": "photo photograph photographic realistic photorealistic product hyperrealistic",
    "wood": "wood wooden oak walnut pine timber carved bamboo birch mahogany",
    "marble": "marble statue sculpture alabaster greek roman bust",
    "gold": "gold golden gilded brass",
    "bronze": "bronze copper rusty rust rusted steampunk",
    "silver": "silver chrome steel metal metallic iron aluminium aluminum platinum robotic mechanical",
    "stone": "stone granite rock concrete cement sandstone slate",
    "jade": "jade emerald malachite",
    "glass": "glass ice icy frozen transparent translucent jelly gummy",
    "ceramic": "ceramic porcelain pottery glazed china enamel",
    "wool": "wool woollen knitted knit felt felted plush fabric crochet fluffy fuzzy textile",
}
LOOK_OF: Final = {word: look for look, words in _WORDS_PER_LOOK.items() for word in words.split()}
MATERIALS: Final = frozenset(
    {"wood", "marble", "gold", "bronze", "silver", "stone", "jade", "glass", "ceramic", "wool"}
)
_UNSTYLED: Final = ("clay", "watercolor", "lowpoly", "oil", "cartoon", "ceramic")
_PLAIN: Final = re.compile(
    r"\b(plain|clean|white|studio|neutral|simple|solid|isolated|grey|gray|empty|blank)\b[\w\s,-]{0,24}\bback(ground|drop)\b"
    r"|\bisolated\b|\bstudio\b|\bcut[- ]?out\b"
)
_TREE: Final = re.compile(r"\b(oak|pine|birch|bamboo|walnut)(?= (trees?|forest)\b)|\bchristmas pine\b")
_REMOVE: Final = re.compile(r"\b(remove|erase|delete|clear|without|clean up)\b")


@dataclass(frozen=True, slots=True)
class Wish:
    words: tuple[str, ...]
    """Lower case, in order."""
    look: str
    """One of the looks of `_WORDS_PER_LOOK`; chosen by `key` when no word names one."""
    look_named: bool
    materials: tuple[str, ...]
    """Those of `MATERIALS` that are named, in order."""
    colours: tuple[Colour, ...]
    """Colours named by the prompt, in order, without repeats."""
    plain_background: bool
    removal: bool
    key: int
    """64 bits that only this prompt has."""

    @property
    def material(self) -> str | None:
        """The first material named, also when another look was named before it."""
        return self.materials[0] if self.materials else None

    def palette(self, count: int, *, seed: int) -> list[Colour]:
        """`count` colours: the named ones first, the others in harmony with them and chosen by `key` and `seed`."""
        rng = np.random.default_rng([self.key, seed & 0xFFFFFFFF])
        palette = list(self.colours[:count])
        hue = hue_of(palette[0]) if palette else float(rng.random())
        steps = (0.0, 0.08, 0.5, 0.92, 0.42, 0.58, 0.33)
        for index in range(len(palette), count):
            shade = steps[index % len(steps)] + float(rng.normal(0.0, 0.025))
            saturation, value = float(rng.uniform(0.42, 0.72)), float(rng.uniform(0.55, 0.92))
            palette.append(from_hsv((hue + shade) % 1.0, saturation, value))
        return palette


def read_wish(prompt: str) -> Wish:
    text = " ".join(re.findall(r"[^\W_]+", prompt.lower().replace("low poly", "lowpoly").replace("8-bit", "8bit")))
    words = tuple(text.split())
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    # "white" of "white background" says nothing about the subject.
    about_subject = _TREE.sub(" ", _PLAIN.sub(" ", text)).split()
    looks = [LOOK_OF[word] for word in about_subject if word in LOOK_OF]
    named = dict.fromkeys(_HEX_PER_COLOUR[word] for word in about_subject if word in _HEX_PER_COLOUR)
    # "photo" is how people begin any wish ("product photo of a wooden boat"): it counts only alone.
    telling = [look for look in looks if look != "photo"] or looks
    return Wish(
        words=words,
        look=telling[0] if telling else _UNSTYLED[key % len(_UNSTYLED)],
        look_named=bool(telling),
        materials=tuple(dict.fromkeys(look for look in looks if look in MATERIALS)),
        colours=tuple(_from_hex(code) for code in named),
        plain_background=bool(_PLAIN.search(text)),
        removal=bool(_REMOVE.search(text)),
        key=key,
    )


def hue_of(colour: Colour) -> float:
    """Hue in turns, 0–1."""
    red, green, blue = colour
    top, spread = max(colour), max(colour) - min(colour)
    if spread == 0:
        return 0.0
    if top == red:
        return ((green - blue) / spread / 6) % 1.0
    return ((blue - red) / spread + 2) / 6 if top == green else ((red - green) / spread + 4) / 6


def from_hsv(hue: float, saturation: float, value: float) -> Colour:
    def channel(shift: float) -> float:
        place = (shift + hue * 6) % 6
        return value - value * saturation * max(0.0, min(place, 4 - place, 1.0))

    return channel(5), channel(3), channel(1)


def _from_hex(code: str) -> Colour:
    return int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255
