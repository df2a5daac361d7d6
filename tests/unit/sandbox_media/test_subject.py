import cv2
import numpy as np
import pytest
from app.sandbox.media.subject import subject_mask
from numpy.typing import NDArray
from PIL import Image

from tests.unit.sandbox_media.pictures import overlap, photo, vase


def pieces(mask: NDArray[np.bool_]) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1


def test_alpha_is_the_mask_and_keeps_a_handle_open() -> None:
    picture, truth = vase(clear=True)
    mask = subject_mask(picture)
    assert overlap(mask, truth) > 0.98
    assert not mask[280, 350]


def test_a_plain_backdrop_in_uneven_light_is_told_from_the_subject() -> None:
    picture, truth = vase()
    assert overlap(subject_mask(picture), truth) > 0.96


def test_the_horse_is_found_to_its_legs() -> None:
    picture = photo("horse")
    assert overlap(subject_mask(picture), np.asarray(picture.convert("L")) < 128) > 0.95


def test_a_cup_on_a_table_is_found() -> None:
    """The table goes round the whole frame, the cup and saucer fill the middle."""
    mask = subject_mask(photo("coffee"))
    assert mask[150:300, 200:400].mean() > 0.95
    assert mask[:, :60].mean() < 0.02
    assert mask[:40, 500:].mean() < 0.02


def test_a_portrait_has_head_and_shoulders() -> None:
    mask = subject_mask(photo("astronaut"))
    assert mask[100, 225]
    assert mask[330, 200]
    assert not mask[60, 420]


@pytest.mark.parametrize("name", ["astronaut", "camera", "cat", "rocket", "logo"])
def test_every_mask_is_one_sensible_piece_and_repeatable(name: str) -> None:
    picture = photo(name)
    mask = subject_mask(picture)
    assert mask.shape == (picture.height, picture.width)
    assert pieces(mask) == 1
    assert 0.01 < mask.mean() < 0.95
    assert np.array_equal(mask, subject_mask(picture))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("RGB", (64, 64), (90, 120, 30)),
        Image.new("RGBA", (40, 90), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 7),
        Image.new("RGB", (3, 200), (250, 1, 1)),
        Image.fromarray(np.random.default_rng(1).integers(0, 255, (90, 70, 3), np.uint8)),
    ],
    ids=["one colour", "all clear", "one pixel", "sliver", "noise"],
)
def test_a_picture_of_nothing_still_has_a_mask_in_its_middle(picture: Image.Image) -> None:
    mask = subject_mask(picture)
    assert mask.shape == (picture.height, picture.width)
    assert pieces(mask) == 1
