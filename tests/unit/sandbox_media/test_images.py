import cv2
import numpy as np
import pytest
from app.sandbox.media.images import paint_prompt, render_sketch, transform_photo
from app.sandbox.media.subject import subject_mask
from app.sandbox.media.words import read_wish
from PIL import Image

from tests.unit.sandbox_media.pictures import difference, face_sketch, overlap, photo, vase

SIZE = (240, 240)
LOOKS = (
    *("clay", "watercolor", "ink", "lowpoly", "pixel", "neon", "oil", "cartoon", "mosaic", "photo"),
    *("wood", "marble", "gold", "bronze", "silver", "stone", "jade", "glass", "ceramic", "wool"),
)


def concept(
    picture: Image.Image, prompt: str, *, background: str = "opaque", seed: int = 1, size: tuple[int, int] = SIZE
) -> Image.Image:
    return transform_photo(picture, prompt=prompt, size=size, background=background, seed=seed)


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_shows_the_subject_alone_and_recognisable(look: str) -> None:
    picture, _ = vase()
    cut = np.asarray(concept(picture, f"{look} vase", background="transparent"))[..., 3] > 127
    made = concept(picture, f"{look} vase")
    assert made.mode == "RGB"
    assert made.size == SIZE
    mask = subject_mask(made)
    # Paper cutters of the next step find the same outline again.
    assert overlap(mask, cut) > 0.85
    light = np.asarray(concept(picture, "photo of a vase").convert("L"), float)
    if look not in ("ink", "neon"):
        own = np.asarray(made.convert("L"), float)
        assert np.corrcoef(own[mask], light[mask])[0, 1] > -0.2


def test_prompts_and_seeds_change_the_picture() -> None:
    picture, _ = vase()
    pictures = [
        concept(picture, prompt, size=(120, 120)) for prompt in (*LOOKS, "frumious", "slithy toves", "blue", "deep red")
    ]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert difference(one, other) > 1.0
    assert difference(concept(picture, "wood"), concept(picture, "wood", seed=2)) > 0.5
    assert difference(concept(picture, "wood"), concept(photo("horse"), "wood")) > 5


def test_equal_arguments_give_equal_pixels() -> None:
    picture, _ = vase()
    assert concept(picture, "oil").tobytes() == concept(picture, "oil").tobytes()
    first = paint_prompt(prompt="a red fox", size=SIZE, background="auto", seed=3)
    assert first.tobytes() == paint_prompt(prompt="a red fox", size=SIZE, background="auto", seed=3).tobytes()


def test_named_colours_arrive() -> None:
    picture, _ = vase()
    pixels = np.asarray(concept(picture, "a blue ceramic vase", background="transparent")).astype(float)
    mean = pixels[pixels[..., 3] > 200].mean(axis=0)
    assert mean[2] > mean[0] + 30


def test_transparent_means_a_real_alpha() -> None:
    made = concept(photo("coffee"), "clay", background="transparent")
    assert made.mode == "RGBA"
    alpha = np.asarray(made)[..., 3]
    assert alpha[:20, :20].max() == 0
    assert alpha[98:135, 98:142].min() == 255
    assert 0.15 < (alpha > 127).mean() < 0.8


def test_auto_keeps_the_scene_unless_a_plain_background_is_wanted() -> None:
    picture = photo("coffee")
    scene, plain = (concept(picture, prompt, background="auto") for prompt in ("oil", "oil, plain background"))
    grain = [np.abs(np.diff(np.asarray(made.convert("L"), float)[:45, 188:], axis=1)).mean() for made in (scene, plain)]
    assert grain[0] > 1.5
    assert grain[1] < 0.6


def test_size_follows_the_photo_when_none_is_given() -> None:
    made = transform_photo(photo("coffee"), prompt="ink", size=None, background="auto", seed=1)
    assert made.size == (1024, 683)
    with pytest.raises(ValueError, match="4096"):
        transform_photo(photo("coffee"), prompt="ink", size=(5000, 100), background="auto", seed=1)


def test_a_mask_confines_the_change() -> None:
    picture = photo("coffee")
    mask = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (30, 30, 230, 230))
    for prompt in ("a red fox", "remove the cup"):
        made = transform_photo(picture, prompt=prompt, size=picture.size, background="auto", seed=1, mask=mask)
        changed = np.abs(np.asarray(made, int) - np.asarray(picture, int)).max(axis=-1) > 0
        assert changed[40:220, 40:220].mean() > 0.5
        changed[30:230, 30:230] = False
        # Elsewhere only the mark in the corner.
        rows, columns = np.nonzero(changed)
        assert rows.size < 400
        assert rows.min() > 350
        assert columns.min() > 480
    fox, owl = (
        transform_photo(picture, prompt=prompt, size=picture.size, background="auto", seed=1, mask=mask)
        for prompt in ("a red fox", "a blue owl")
    )
    assert difference(fox.crop((30, 30, 230, 230)), owl.crop((30, 30, 230, 230))) > 10


def test_the_mark_is_there_and_faint() -> None:
    picture, _ = vase()
    corner = np.asarray(concept(picture, "clay", size=(640, 640)).convert("L"), float)[600:, 540:]
    background = cv2.GaussianBlur(corner, (0, 0), 12)
    marked = np.abs(corner - background)
    assert 6 < marked.max() < 45


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_any_kind_of_picture_will_do(mode: str) -> None:
    picture = vase()[0].convert("L").convert(mode) if mode == "I;16" else vase()[0].convert(mode)
    assert concept(picture, "clay", size=(160, 160)).size == (160, 160)


@pytest.mark.parametrize(
    "prompt", ["a red fox", "a wooden boat", "a blue car", "castle", "gold robot", "blorf quux", "", "🦊", "x" * 30_000]
)
def test_words_become_one_thing_before_a_plain_backdrop(prompt: str) -> None:
    made = paint_prompt(prompt=prompt, size=SIZE, background="auto", seed=1)
    assert made.size == SIZE
    cut = paint_prompt(prompt=prompt, size=SIZE, background="transparent", seed=1)
    truth = np.asarray(cut)[..., 3] > 127
    assert overlap(subject_mask(made), truth) > 0.85


def test_different_words_paint_different_things() -> None:
    prompts = ("a red fox", "a red car", "a blue car", "a castle", "blorf", "quux", "wooden fox", "watercolor fox")
    pictures = [paint_prompt(prompt=prompt, size=(200, 200), background="auto", seed=1) for prompt in prompts]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert difference(one, other) > 2


def test_a_sketch_is_filled_within_its_outline() -> None:
    made = render_sketch(face_sketch(), prompt="a happy yellow face", seed=1)
    assert max(made.size) == 1024
    mask = subject_mask(made)
    assert mask[512, 512]
    assert 0.3 < mask.mean() < 0.75
    pixels = np.asarray(made, float)[mask]
    assert pixels[:, 0].mean() > pixels[:, 2].mean() + 40
    assert difference(made, render_sketch(face_sketch(), prompt="a wooden face", seed=1)) > 8


def test_an_open_stroke_and_a_photo_are_rendered_too() -> None:
    stroke = Image.new("RGB", (300, 300), "white")
    stroke.paste((0, 0, 0), (40, 140, 260, 146))
    stroke.paste((0, 0, 0), (40, 40, 46, 146))
    assert 0.1 < subject_mask(render_sketch(stroke, prompt="thing", seed=1)).mean() < 0.8
    assert max(render_sketch(photo("coffee"), prompt="cup", seed=1).size) == 1024


def test_words_are_read_as_people_mean_them() -> None:
    assert read_wish("product photo of a wooden boat, white background").look == "wood"
    assert read_wish("product photo of a wooden boat, white background").colours == ()
    assert read_wish("an oak tree").materials == ()
    assert read_wish("weathered oak, brass fittings").materials == ("wood", "gold")
    assert read_wish("Plain, light-grey background").plain_background
    assert read_wish("low poly fox").look == "lowpoly"
    assert not read_wish("blorf").look_named
