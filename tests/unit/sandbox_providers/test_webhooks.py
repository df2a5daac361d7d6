"""Webhooks: signatures that receivers can check, redelivery, and everything that goes wrong with them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from tests.unit.sandbox_providers.served import BARE, Back, Tripo, picture, wait_for
from tests.unit.sandbox_providers.test_wire import example, same_shape

SECRET = "whsec_" + base64.b64encode(b"a secret of the test").decode()
TEXT = "/generation/text-to-model"
BODY = {"prompt": "a boat", **BARE}


@dataclass
class Delivery:
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value

    def is_genuine(self) -> bool:
        """The vendor's rule: within 300 s, and any v1 matches."""
        parts = [part.split("=", 1) for part in self.headers["tripo-webhook-signature"].split(",")]
        stamp = next(value for name, value in parts if name == "t")
        wanted = hmac.new(SECRET.encode(), f"{stamp}.".encode() + self.body, hashlib.sha256).hexdigest()
        fresh = abs(time.time() - int(stamp)) < 300
        return fresh and wanted in [value for name, value in parts if name == "v1"]


@dataclass
class Receiver:
    url: str
    got: list[Delivery] = field(default_factory=list[Delivery])
    answers: list[int] = field(default_factory=list[int])
    """Statuses of the next answers; 200 when there are none."""

    def wait(self, count: int) -> list[Delivery]:
        return wait_for(lambda: self.got if len(self.got) >= count else None)


@pytest.fixture
def receiver(back: Back) -> Generator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            here.got.append(Delivery({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(here.answers.pop(0) if here.answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    assert back.http.post("/webhook", json={"url": here.url, "secret": SECRET}).status_code == 204
    yield here
    back.http.post("/webhook", json={"url": None})
    server.shutdown()
    thread.join()
    server.server_close()


def failing(tripo: Tripo, back: Back) -> str:
    back.arm("tripo.task", "failed")
    return tripo.created(TEXT, BODY)


@pytest.fixture(autouse=True)
def stock(back: Back) -> None:
    """What a result shows is not asked here."""
    back.turn(drawing="stock")


def test_failures_and_successes_are_told(tripo: Tripo, back: Back, receiver: Receiver) -> None:
    task_id = failing(tripo, back)
    (delivery,) = receiver.wait(1)
    assert delivery.is_genuine()
    assert delivery.headers["tripo-webhook-event"] == delivery.event["type"] == "task.failed"
    assert delivery.event["data"]["task_id"] == task_id
    assert delivery.event["data"]["error"]["code"] == "task_failed"
    back.arm("tripo.task", "cancelled")
    tripo.created(TEXT, BODY)
    assert receiver.wait(2)[1].event["data"]["status"] == "cancelled"
    back.turn(low_balance="1000000")
    done = tripo.created(TEXT, BODY)
    last = {delivery.event["type"]: delivery.event for delivery in receiver.wait(4)[2:]}
    assert set(last["task.completed"]["data"]["output"]) == {"model_url", "rendered_image_url"}
    assert last["balance.low"]["data"]["task_id"] == done


@pytest.mark.parametrize("name", ["webhook_completed", "webhook_failed", "webhook_balance_low"])
def test_the_documented_examples(tripo: Tripo, back: Back, receiver: Receiver, name: str) -> None:
    kept = example(f"tripo/{name}")
    back.turn(low_balance="1000000")
    if name == "webhook_failed":
        failing(tripo, back)
    else:
        tripo.created("/generation/image-to-model", {"input": tripo.upload(picture()), **BARE})
    (delivery,) = [one for one in receiver.wait(2) if one.event["type"] == kept["body"]["type"]]
    assert {header.lower() for header in kept["headers"]} <= set(delivery.headers)
    same_shape(kept["body"], delivery.event)


def test_what_is_not_answered_is_sent_again(tripo: Tripo, back: Back, receiver: Receiver) -> None:
    receiver.answers = [500, 503]
    failing(tripo, back)
    deliveries = receiver.wait(3)
    assert len({delivery.headers["tripo-webhook-delivery"] for delivery in deliveries}) == 1


@pytest.mark.parametrize(
    ("kind", "genuine"), [("bad_signature", False), ("old_signature", False), ("two_signatures", True)]
)
def test_signatures(tripo: Tripo, back: Back, receiver: Receiver, kind: str, genuine: bool) -> None:
    back.arm("webhook", kind)
    failing(tripo, back)
    assert receiver.wait(1)[0].is_genuine() is genuine


def test_twice_late_lost_and_out_of_order(tripo: Tripo, back: Back, receiver: Receiver) -> None:
    back.arm("webhook", "duplicate")
    failing(tripo, back)
    first, second = receiver.wait(2)
    assert first.body == second.body
    back.arm("webhook", "lost")
    tripo.ended(failing(tripo, back))
    back.arm("webhook", "late", seconds=0.5)
    late = failing(tripo, back)
    tripo.ended(late)
    assert receiver.wait(3)[2].event["data"]["task_id"] == late
    back.arm("webhook", "out_of_order")
    earlier = failing(tripo, back)
    tripo.ended(earlier)
    later = failing(tripo, back)
    assert {delivery.event["data"]["task_id"] for delivery in receiver.wait(5)[3:]} == {earlier, later}


def test_before_the_reply(tripo: Tripo, back: Back, receiver: Receiver) -> None:
    back.arm("webhook", "before_reply")
    task_id = failing(tripo, back)
    assert [delivery.event["data"]["task_id"] for delivery in receiver.got] == [task_id]


def test_other_forms(tripo: Tripo, back: Back, receiver: Receiver) -> None:
    back.arm("webhook", "unknown_type")
    failing(tripo, back)
    assert receiver.wait(1)[0].event["type"] == "task.sparkled"
    back.arm("webhook", "error_fields")
    failing(tripo, back)
    assert receiver.wait(2)[1].event["data"]["error_code"] == 2008


def test_openais_scheme(back: Back, receiver: Receiver) -> None:
    answer = back.http.post("/webhook/openai", json={"url": receiver.url, "secret": SECRET})
    assert answer.json() == {"received": True}
    (delivery,) = receiver.got
    client = openai.OpenAI(api_key="unused", webhook_secret=SECRET)
    event = client.webhooks.unwrap(delivery.body, delivery.headers)
    assert event.type == "response.completed"
    client.close()
