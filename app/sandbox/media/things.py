"""Which thing a prompt is about."""

from dataclasses import dataclass
from typing import Final

from app.sandbox.media import things_abstract as abstract
from app.sandbox.media import things_living as living
from app.sandbox.media import things_made as made
from app.sandbox.media.sculpt import Builder
from app.sandbox.media.words import Wish


@dataclass(frozen=True, slots=True)
class Thing:
    build: Builder
    colours: str = ""
    """Natural colours as six hex digits each, used where the prompt names none."""


_THINGS: Final[tuple[tuple[str, Thing], ...]] = (
    ("fox", Thing(living.creature("pointed", tail=1.15, snout=0.24), "e0742a3a2a24f0b060")),
    ("cat kitten kitty lynx", Thing(living.creature("pointed", tail=0.6, snout=0.09), "8f8a86d8a0a0e8b84a")),
    (
        "tiger leopard lion cheetah panther",
        Thing(living.creature("round", tail=0.55, snout=0.14), "e0a04a6b4226f4d090"),
    ),
    ("wolf husky coyote", Thing(living.creature("pointed", tail=0.95, snout=0.27), "7d858f3f454ec9d2da")),
    ("bear teddy panda koala", Thing(living.creature("round", tail=0.0, snout=0.13, slim=1.1), "8a5a35d9a878c0392b")),
    (
        "mouse hamster rat squirrel",
        Thing(living.creature("round", tail=0.7, snout=0.18, slim=0.92), "a08b7ae0a8a0c98a5a"),
    ),
    ("rabbit bunny hare", Thing(living.creature("long", tail=0.0, snout=0.10), "d9cbbbe8a9aeef9a9a")),
    ("dog puppy hound beagle corgi", Thing(living.creature("floppy", tail=0.5, snout=0.22), "c58b4e6a4128d0342c")),
    (
        "cow sheep goat deer pig horse donkey elephant",
        Thing(living.creature("floppy", tail=0.35, snout=0.26, slim=1.08), "b99f88d68f8f6b4a36"),
    ),
    (
        "dragon dinosaur monster demon devil unicorn",
        Thing(living.creature("horned", tail=1.0, snout=0.28), "3f9a5ae8b04ad0342c"),
    ),
    ("bird owl parrot penguin chick duck eagle hen chicken robin", Thing(living.bird, "3a78c21d3a6bf0932b")),
    ("fish shark whale goldfish dolphin", Thing(living.fish, "f08a2ce05a1cf4d03f")),
    (
        "robot android knight astronaut man woman person boy girl hero soldier character figure figurine wizard pirate",
        Thing(living.figure, "8fa3b5d9843b4cc9f0"),
    ),
    ("car truck taxi bus van jeep racecar vehicle", Thing(made.car, "d0342cbfc4c9f4cf3a")),
    ("boat ship sailboat yacht canoe rowing", Thing(made.boat, "9c6436cf9d63d0342c")),
    ("rocket spaceship spacecraft shuttle missile", Thing(made.rocket, "d0342c2f68c84cc9f0")),
    ("plane airplane aeroplane aircraft jet helicopter drone", Thing(made.plane, "e8e4da2f68c8d0342c")),
    ("house home cottage cabin hut barn shop building", Thing(made.house, "b4472f6e4a34f7d774")),
    ("castle tower lighthouse fortress palace temple church", Thing(made.castle, "b8ab981f4f8ad0342c")),
    ("pine fir spruce christmas", Thing(living.pine, "2c6e4a6b4428f2c53a")),
    ("tree oak apple-tree bonsai forest", Thing(living.tree, "4f9a45755030d0342c")),
    ("flower rose tulip daisy sunflower plant", Thing(living.flower, "e0567a4c9a4ae8a33a")),
    ("mushroom toadstool fungus", Thing(living.mushroom, "cf2f2ae5d8c0f4e9d0")),
    ("cactus succulent", Thing(living.cactus, "4f9d62c2693ff08fb2")),
    ("cup mug coffee tea teacup espresso", Thing(made.cup, "2f7fa8e9e4d9f0a030")),
    ("vase jar pot urn jug pitcher teapot amphora", Thing(made.vessel, "2c6fa6d8c39ac9642f")),
    ("bottle flask perfume wine potion", Thing(made.bottle, "2f7d5cc2a35a8a2f2f")),
    ("chair seat armchair stool throne sofa", Thing(made.chair, "3a7ca58a5a35e9c46a")),
    ("table desk bench", Thing(made.table, "a8703f7b4e2b4a9fb5")),
    ("lamp lantern light candle", Thing(made.lamp, "f1d08a8a6a3fc9642f")),
    ("apple fruit pear orange peach tomato pumpkin cherry", Thing(living.fruit, "cf2f2a4c8a3a6b4428")),
    ("cake cupcake pie dessert birthday", Thing(made.cake, "f0a8b88a5432d0342c")),
    ("donut doughnut bagel", Thing(made.donut, "f08fb2c98d4f4cc9f0")),
    ("sword dagger blade knife excalibur", Thing(made.sword, "5a3a22a8b4c0d8a532")),
    ("gem crystal diamond jewel ruby quartz amethyst", Thing(abstract.gem, "8a52cc4cb5e0e0567a")),
    ("star", Thing(abstract.star, "f4c430e8a020f08f8f")),
    ("heart love", Thing(abstract.heart, "d62c4ae0567af8b98f")),
    ("planet globe earth moon ball world sphere sun", Thing(abstract.globe, "2f68c84f9a45d8b070")),
    ("snowman snow", Thing(living.snowman, "d0342cee7d242f68c8")),
)
_THING_OF: Final = {word: thing for words, thing in _THINGS for word in words.split()}
_WEAK: Final = frozenset(
    {"figure", "figurine", "character", "person", "hero", "ball", "star", "heart", "love", "world"}
    | {"light", "coffee", "tea", "orange", "rose", "snow", "plant", "shop"}
)
"""Words that also colour, praise or place another thing: they count when no other noun is known."""
_UNKNOWN: Final = Thing(abstract.totem)


def thing_of(wish: Wish) -> Thing:
    """What the first known noun names; a figure of the prompt's own where none is known."""
    known = [word for word in map(_known_form, wish.words) if word]
    strong = [word for word in known if word not in _WEAK]
    chosen = strong or known
    return _THING_OF[chosen[0]] if chosen else _UNKNOWN


def _known_form(word: str) -> str | None:
    return next((form for form in (word, word.removesuffix("s"), word.removesuffix("es")) if form in _THING_OF), None)
