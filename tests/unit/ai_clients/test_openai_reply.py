"""Decoding a stored reply: in bounded memory, picture by picture, whatever lies around them."""

from __future__ import annotations

import json
import os
import random
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pybase64
import pytest
from app.ai_clients.base import ImageRequest, Result, ResultFile
from app.ai_clients.errors import OutcomeUnknown
from app.ai_clients.openai.client import OpenAIImages
from app.ai_clients.openai.reply import read_reply
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.ai_clients.support import b64, picture_bytes
from tests.unit.inputs.pictures import attacks

PNG, JPEG, WEBP = picture_bytes("PNG"), picture_bytes("JPEG"), picture_bytes("WEBP")
USAGE = {
    "input_tokens": 21,
    "input_tokens_details": {"text_tokens": 21, "image_tokens": 0},
    "output_tokens": 3512,
    "output_tokens_details": {"image_tokens": 3512, "text_tokens": 0},
    "total_tokens": 3533,
}


async def decode(openai: OpenAIImages, directory: Path, body: str | bytes, n: int = 10) -> Result:
    reply = directory / "reply"
    reply.write_bytes(body.encode() if isinstance(body, str) else body)
    return await openai.decode(reply, ImageRequest("x", n=n), directory=directory / "out")


def entries(*values: object) -> str:
    return json.dumps({"created": 1, "data": [{"b64_json": value} for value in values], "usage": USAGE})


async def test_pictures_are_named_by_what_they_are(openai: OpenAIImages, tmp_path: Path) -> None:
    result = await decode(openai, tmp_path, entries(b64(PNG), b64(JPEG), b64(WEBP)))
    kinds = [(i.content_type, i.extension, i.width, i.height, i.size) for i in result.files if i is not None]
    assert kinds == [
        ("image/png", "png", 8, 6, len(PNG)),
        ("image/jpeg", "jpg", 8, 6, len(JPEG)),
        ("image/webp", "webp", 8, 6, len(WEBP)),
    ]
    first = result.files[0]
    assert first is not None
    assert first.path.read_bytes() == PNG
    assert result.usage == USAGE
    assert result.cost_micros == 21 * 5 + 3512 * 30


async def test_decoding_can_be_repeated(openai: OpenAIImages, tmp_path: Path) -> None:
    once = await decode(openai, tmp_path, entries(b64(PNG)))
    assert await decode(openai, tmp_path, entries(b64(PNG))) == once


@pytest.mark.parametrize(
    "broken",
    [
        "!!!!",
        b64(PNG)[:-3],
        b64(PNG) + "AAAA" if len(PNG) % 3 else b64(PNG + b"x") + "AAAA",
        b64(PNG)[:40],
        "",
        b64(b"<html>not a picture</html>"),
        b64(b"GIF89a" + bytes(100)),
        b64(PNG[:-20]),
        b64(attacks(100_000)["jpeg markers"]),
        None,
        7,
        ["x"],
    ],
)
async def test_a_broken_picture_costs_only_itself(openai: OpenAIImages, tmp_path: Path, broken: object) -> None:
    result = await decode(openai, tmp_path, entries(b64(PNG), broken, b64(JPEG)))
    assert [image is not None for image in result.files] == [True, False, True]


async def test_surplus_pictures_are_read_over(openai: OpenAIImages, tmp_path: Path) -> None:
    result = await decode(openai, tmp_path, entries(*[b64(PNG)] * 4), n=2)
    assert len(result.files) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]


async def test_too_many_pixels_or_bytes_are_no_picture(tmp_path: Path, openai: OpenAIImages) -> None:
    wide = Image.new("1", (70_000, 1_000))
    wide.save(tmp_path / "wide.png")
    result = await decode(openai, tmp_path, entries(b64((tmp_path / "wide.png").read_bytes()), b64(PNG)))
    assert [image is not None for image in result.files] == [False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"<html>502</html>",
        b'{"created":1}',
        b'{"created":1,"data":[]}',
        b'{"created":1,"data":{}}',
        b'{"created":1,"data":[{"b64_json":"iVBOR',
        b'{"created":1,"data":[{"b64_json":"' + b64(PNG).encode() + b'"}]',
        b'{"a":"\\u00',
        b'{"x":"' + b"a" * 3_000_000 + b'","data":[]}',
        b"[" * 3_000_000,
        b'{"error":{"message":"late failure"}}',
    ],
)
async def test_what_is_no_reply_is_unknown(openai: OpenAIImages, tmp_path: Path, body: bytes) -> None:
    with pytest.raises(OutcomeUnknown):
        await decode(openai, tmp_path, body)


async def test_json_is_respected(openai: OpenAIImages, tmp_path: Path) -> None:
    """Spaces, escapes, look-alikes in strings, keys in any order, and a picture spread over odd escapes."""
    spelled = b64(PNG).replace("/", "\\/").replace("+", "\\u002b")
    body = (
        '{ "note" : "a \\"b64_json\\": \\"AAAA\\" \\\\" ,\n "usage" : ' + json.dumps(USAGE) + ', "data" :\n'
        ' [ { "revised" : "b64_json" , "b64_json"  :\n "' + spelled[:20] + "\\n" + spelled[20:] + '" } ],'
        ' "b64_json": "AAAA" }'
    )
    if "\\n" in spelled[:22]:  # pragma: no cover - the split never falls into an escape of this picture
        raise AssertionError
    result = await decode(openai, tmp_path, body)
    assert len(result.files) == 1
    assert isinstance(result.files[0], ResultFile)
    assert result.files[0].path.read_bytes() == PNG


@pytest.mark.parametrize("seed", range(5))
async def test_reads_of_any_length_give_the_same(openai: OpenAIImages, tmp_path: Path, seed: int) -> None:
    """The scan does not depend on where the file's blocks end."""
    chance = random.Random(seed)
    pictures = [picture_bytes("PNG", (chance.randint(1, 400), chance.randint(1, 400))) for _ in range(3)]
    padding = "p" * chance.randint(250_000, 270_000)
    body = json.dumps({"padding": padding, "data": [{"b64_json": b64(picture)} for picture in pictures]})
    result = await decode(openai, tmp_path, body)
    assert [image and image.path.read_bytes() for image in result.files] == pictures


async def test_without_usage_the_estimate_is_booked(openai: OpenAIImages, tmp_path: Path) -> None:
    for usage in (None, {}, {"input_tokens": "many", "output_tokens": 1}, {"input_tokens": -1, "output_tokens": 1}):
        body: dict[str, Any] = {"data": [{"b64_json": b64(PNG)}], "usage": usage}
        result = await decode(openai, tmp_path, json.dumps(body), n=2)
        assert result.cost_micros == openai.estimate(ImageRequest("x", n=2)).micros
        assert result.cost_is_estimate


async def test_ten_large_pictures_stay_out_of_memory(openai: OpenAIImages, tmp_path: Path) -> None:
    """120 MB of reply, less than 16 MB of Python memory at any moment."""
    noise = tmp_path / "noise.png"
    Image.frombytes("RGB", (2000, 1500), os.urandom(2000 * 1500 * 3)).save(noise, compress_level=0)
    text = pybase64.b64encode(noise.read_bytes())
    reply = tmp_path / "reply"
    with reply.open("wb") as file:
        file.write(b'{"created":1,"data":[')
        for index in range(10):
            file.write((b"," if index else b"") + b'{"b64_json":"')
            file.write(text)
            file.write(b'"}')
        file.write(b'],"usage":' + json.dumps(USAGE).encode() + b"}")
    del text
    assert reply.stat().st_size > 110_000_000
    tracemalloc.start()
    try:
        result = await openai.decode(reply, ImageRequest("x", n=10), directory=tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(image is not None and (image.width, image.height) == (2000, 1500) for image in result.files)
    assert peak < 16 * 1024 * 1024
    assert result.usage == USAGE


_leaves = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text() | st.just("b64_json")
_json = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(
    around=st.dictionaries(st.text(), _json, max_size=5),
    pictures=st.lists(st.binary(max_size=40), max_size=4),
    data=st.data(),
)
def test_the_scan_agrees_with_a_json_parser(around: dict[str, Any], pictures: list[bytes], data: st.DataObject) -> None:
    """Whatever lies around and within the entries, pictures are found by key and the rest is left as it is."""
    extra = data.draw(st.dictionaries(st.text().filter(lambda key: key != "b64_json"), _json, max_size=2))
    body = {
        **around,
        "usage": around,
        "data": [{**extra, "b64_json": b64(PNG + picture)} for picture in pictures] + [extra],
    }
    with tempfile.TemporaryDirectory() as directory:
        reply = Path(directory) / "reply"
        reply.write_text(
            json.dumps(body, ensure_ascii=data.draw(st.booleans()), indent=data.draw(st.sampled_from([None, 1])))
        )
        read = read_reply(reply, directory=Path(directory), max_images=10, max_image_bytes=10**6, max_pixels=10**6)
        assert [i and i.path.read_bytes() for i in read.images] == [PNG + picture for picture in pictures] + [None]
    assert read.usage == around
