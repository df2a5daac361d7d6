"""Stock drawing: the asked size and format, whatever the words; the same books as for real work."""

from __future__ import annotations

import base64
import io

from app.sandbox.media.glb_read import GlbFile
from app.sandbox.providers.stock import stock_model
from PIL import Image

from tests.loopback import loopback
from tests.unit.sandbox_providers.served import OPENAI_KEY, Back, Tripo, fetch


def test_a_picture_of_the_asked_size_and_format(served: str, back: Back) -> None:
    back.turn(drawing="stock")
    paid = len(back.ledger())
    body = {"model": "gpt-image-2", "prompt": "a fox", "size": "1024x640", "output_format": "webp", "n": 2}
    headers = {"Authorization": f"Bearer {OPENAI_KEY}"}
    answer = loopback.post(f"{served}/openai/v1/images/generations", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    pictures = [base64.b64decode(one["b64_json"]) for one in answer.json()["data"]]
    assert [Image.open(io.BytesIO(picture)).size for picture in pictures] == [(1024, 640)] * 2
    assert {Image.open(io.BytesIO(picture)).format for picture in pictures} == {"WEBP"}
    assert len(back.ledger()) == paid + 1


def test_a_model_with_a_preview(tripo: Tripo, back: Back) -> None:
    back.turn(drawing="stock")
    made = tripo.made("/generation/text-to-model", {"model": "v3.1-20260211", "prompt": "a fox"})
    model = fetch(made["output"]["model_url"])
    assert list(GlbFile(model).parts())
    assert Image.open(io.BytesIO(fetch(made["output"]["rendered_image_url"]))).format == "WEBP"


def test_a_model_that_is_filled_up_to_a_size(tripo: Tripo, back: Back) -> None:
    sizes: list[int] = []
    for wanted in (1_000, 400_000):
        back.turn(drawing="stock", model_bytes=wanted)
        made = tripo.made("/generation/text-to-model", {"model": "v3.1-20260211", "prompt": "a fox"})
        model = fetch(made["output"]["model_url"])
        assert list(GlbFile(model).parts())
        sizes.append(len(model))
    assert sizes == [len(stock_model()), 400_000]
