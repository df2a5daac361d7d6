"""OpenAI Images as the vendor's own SDK sees it: pictures, usage, money, streams."""

from __future__ import annotations

import base64
import io
from collections.abc import Generator
from typing import Any, cast

import httpx
import openai
import pytest
from app.sandbox.providers.openai_prices import picture_tokens
from PIL import Image

from tests.unit.sandbox_providers.served import OPENAI_KEY, Back, mask, picture


@pytest.fixture
def client(served: str) -> Generator[openai.OpenAI]:
    with httpx.Client(trust_env=False, timeout=120) as http:
        yield openai.OpenAI(
            api_key=OPENAI_KEY,
            base_url=f"{served}/openai/v1",
            max_retries=0,
            http_client=http,  # pyright: ignore[reportArgumentType] - the SDK takes httpx's as well
        )


def opened(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def test_pictures_from_words(client: openai.OpenAI, back: Back) -> None:
    raw = client.images.with_raw_response.generate(
        model="gpt-image-2", prompt="a ball", n=2, size="816x816", quality="low", output_format="webp"
    )
    reply = raw.parse()
    assert reply.data is not None
    pictures = [opened(image.b64_json) for image in reply.data]
    assert [(image.size, image.format) for image in pictures] == [((816, 816), "WEBP")] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert (reply.size, reply.quality, reply.background, reply.output_format) == ("816x816", "low", "opaque", "webp")
    usage = reply.usage
    assert usage is not None
    assert usage.output_tokens == 2 * picture_tokens("gpt-image-2", "low", (816, 816))
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    (row,) = [row for row in back.ledger() if row["reference"] == raw.headers["x-request-id"]]
    assert int(row["charged"]) == usage.input_tokens * 5 + usage.output_tokens * 30
    assert (row["provider"], row["kind"], row["unit"], row["state"]) == (
        "openai",
        "generation",
        "usd_micros",
        "charged",
    )
    assert (row["reply"], row["delivered"], row["key_tail"], row["accepted"]) == ("sent", 1, OPENAI_KEY[-4:], True)
    assert OPENAI_KEY not in str(row)


def test_a_photo_becomes_something_else_by_the_prompt(client: openai.OpenAI) -> None:
    seen: set[bytes] = set()
    for prompt in ("as a clay figure", "as a blue watercolour"):
        reply = client.images.edit(
            model="gpt-image-2",
            prompt=prompt,
            image=[("a.png", picture(360, 300), "image/png"), ("b.jpg", picture(format_name="JPEG"), "image/jpeg")],
            size="816x816",
            quality="low",
        )
        assert reply.data is not None
        seen.add(opened(reply.data[0].b64_json).tobytes())
        assert reply.usage is not None
        assert reply.usage.input_tokens_details.image_tokens > 0
    assert len(seen) == 2


def test_auto_size_follows_the_photo(client: openai.OpenAI) -> None:
    reply = client.images.edit(
        model="gpt-image-2", prompt="clay", image=("a.png", picture(480, 320), "image/png"), quality="low"
    )
    assert reply.data is not None
    assert reply.size == "1536x1024"
    assert opened(reply.data[0].b64_json).size == (1536, 1024)


def test_a_sketch_is_rendered_in_the_size_that_was_asked_for(client: openai.OpenAI) -> None:
    reply = client.images.edit(
        model="gpt-image-2",
        prompt="render this sketch as a red ball",
        image=("a.png", picture(500, 320), "image/png"),
        size="1024x1024",
        quality="low",
    )
    assert reply.data is not None
    assert opened(reply.data[0].b64_json).size == (1024, 1024)


def test_only_what_the_mask_leaves_clear_changes(client: openai.OpenAI) -> None:
    photo = picture(1024, 1024)
    reply = client.images.edit(
        model="gpt-image-2",
        prompt="a green leaf",
        image=("a.png", photo, "image/png"),
        mask=("m.png", mask(1024, 1024), "image/png"),
        size="1024x1024",
        quality="low",
    )
    assert reply.data is not None
    made = opened(reply.data[0].b64_json).convert("RGB")
    before = Image.open(io.BytesIO(photo))
    assert made.getpixel((800, 500)) == before.getpixel((800, 500))
    assert made.crop((60, 60, 200, 200)).tobytes() != before.crop((60, 60, 200, 200)).tobytes()


def test_markup_is_seen(client: openai.OpenAI) -> None:
    reply = client.images.edit(
        model="gpt-image-2.5-flare",
        prompt="clay",
        image=("a.png", picture(), "image/png"),
        markup=("m.png", mask(), "image/png"),
        size="816x816",
        quality="low",
        background="transparent",
    )
    assert reply.data is not None
    assert opened(reply.data[0].b64_json).mode == "RGBA"


@pytest.mark.parametrize("partials", [0, 2])
def test_a_stream_shows_partials_and_then_the_picture(client: openai.OpenAI, back: Back, partials: int) -> None:
    stream = client.images.generate(
        model="gpt-image-2",
        prompt="a ball",
        size="816x816",
        quality="low",
        output_format="jpeg",
        output_compression=60,
        stream=True,
        partial_images=partials,
    )
    events = [cast("Any", event) for event in stream]
    assert [event.type for event in events] == [
        *["image_generation.partial_image"] * partials,
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:-1]] == list(range(partials))
    final = events[-1]
    assert {opened(event.b64_json).size for event in events} == {(816, 816)}
    assert len({event.b64_json for event in events}) == partials + 1
    assert final.usage.output_tokens == picture_tokens("gpt-image-2", "low", (816, 816)) + 100 * partials
    assert (back.ledger()[-1]["reply"], back.ledger()[-1]["delivered"]) == ("sent", 1)


def test_an_edit_streams_under_its_own_names(client: openai.OpenAI) -> None:
    stream = client.images.edit(
        model="gpt-image-2",
        prompt="clay",
        image=("a.png", picture(), "image/png"),
        size="816x816",
        quality="low",
        stream=True,
        partial_images=1,
    )
    assert [cast("Any", event).type for event in stream] == ["image_edit.partial_image", "image_edit.completed"]


def test_models(client: openai.OpenAI) -> None:
    assert "gpt-image-2" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-image-2").owned_by == "sandbox"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-image-1")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("model", "quality", "size", "tokens"),
    [
        ("gpt-image-2", "low", (1024, 1024), 196),
        ("gpt-image-2", "medium", (1024, 1024), 1756),
        ("gpt-image-2-2026-04-21", "high", (1024, 1024), 7024),
        ("gpt-image-2", "medium", (1536, 1024), 1372),
        ("gpt-image-2", "high", (1024, 1536), 5488),
        ("gpt-image-2", "low", (2048, 2048), 397),
        ("gpt-image-2.5-flare", "medium", (1024, 1024), 439),
        ("gpt-image-2.5-sunburst", "xhigh", (1536, 1024), 2459),
        ("gpt-image-2.6-flare", "max", (2048, 2048), 14272),
    ],
)
def test_tokens_are_those_of_the_published_table(model: str, quality: str, size: tuple[int, int], tokens: int) -> None:
    assert picture_tokens(model, quality, size) == tokens
