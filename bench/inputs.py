"""What one user's pictures cost another: POSTs with a small photo, alone and beside slow pictures."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from uuid import uuid4

import httpx
from tests.e2e.gateway import Gateway, User, sample
from tests.unit.inputs.pictures import attacks, black_png

from bench.bench import Bench
from bench.figures import Figure, percentile
from bench.resident import resident, watched
from bench.servers import gateway

_POSTS, _QUICK_POSTS = 40, 10  # in a round
_AT_ONCE = 4  # requests of the other user
_MOST_REQUESTS = 400  # of the other user, in a round
_SIDE = 7_900  # within the limit of pixels
_ATTACK_BYTES = 20 * 1024 * 1024 - 4096  # within the limit of bytes
_INPUTS = "user_input_files_bucket"
_ALONE = "alone"


def inputs(bench: Bench) -> list[Figure]:
    """Two attacks that are refused and the largest picture that is accepted, each beside another user's requests."""
    bench.say("inputs: starting the gateway")
    flood = attacks(_ATTACK_BYTES)
    beside = {
        "beside 20 MB of JPEG markers": flood["jpeg markers"],
        "beside 20 MB of empty PNG chunks": flood["png private chunks"],
        "beside 62 million pixels": black_png(_SIDE, _SIDE),
    }
    del flood
    times: dict[str, list[list[float]]] = {name: [] for name in (_ALONE, *beside)}
    growths: dict[str, list[float]] = {name: [] for name in beside}
    answers: dict[str, Counter[int]] = {name: Counter() for name in beside}
    with gateway(SANDBOX_WORK_SECONDS="600") as running:
        user, other = running.new_user(), running.new_user()
        photo = user.put_input(sample("coffee.png"))
        urls = {
            name: other.put_object(_INPUTS, f"{other.id}/{uuid4()}", content, "image/png")
            for name, content in beside.items()
        }
        (api,) = running.pids("app.cli api")
        started = resident(api)
        posts = _QUICK_POSTS if bench.quick else _POSTS
        _times(user, photo, 3)  # warm
        for _ in bench.each_round("inputs"):
            times[_ALONE].append(_times(user, photo, posts))
            for name, url in urls.items():
                with watched(api) as peak, _flood(running, other, url, answers[name]):
                    times[name].append(_times(user, photo, posts))
                growths[name].append(peak.growth)
        running.kill_all()
    return [
        *(figure for name, rounds in times.items() for figure in _figures(name, rounds, answers.get(name))),
        *(
            Figure(f"inputs.{_word(name)}.memory", f"API {name}, growth", "MB", tuple(values), f"from {started:.0f} MB")
            for name, values in growths.items()
        ),
    ]


def _times(user: User, url: str, number: int) -> list[float]:
    """Milliseconds of each POST, one after the other."""
    took: list[float] = []
    for _ in range(number):
        began = time.perf_counter()
        _ask(user.http, url).raise_for_status()
        took.append(1000 * (time.perf_counter() - began))
    return took


def _ask(http: httpx.Client, url: str) -> httpx.Response:
    body = {"task_id": str(uuid4()), "input_image_asset_urls": [url]}
    return http.post("/generate/image-to-model", json=body, timeout=300)


@contextmanager
def _flood(running: Gateway, user: User, url: str, answers: Counter[int]) -> Generator[None]:
    """A few requests of the user at any time, until the block ends."""
    ending = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        with httpx.Client(base_url=running.api_url, headers={"Authorization": f"Bearer {user.token}"}) as http:
            while not ending.is_set() and sent < _MOST_REQUESTS:
                sent += 1
                answers[_ask(http, url).status_code] += 1

    threads = [threading.Thread(target=send, daemon=True) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def _figures(name: str, rounds: list[list[float]], answers: Counter[int] | None) -> list[Figure]:
    told = "" if answers is None else ", ".join(f"{number}×{code}" for code, number in sorted(answers.items()))
    how = f"{len(rounds[0])} POSTs with a photo in a round" + (f"; the other's answers: {told}" if told else "")
    return [
        Figure(
            f"inputs.{_word(name)}.p{share * 100:.0f}",
            f"accept {name}, p{share * 100:.0f}",
            "ms",
            tuple(percentile(took, share) for took in rounds),
            how,
        )
        for share in (0.5, 0.99)
    ]


def _word(name: str) -> str:
    return name.removeprefix("beside ").replace(" ", "_").lower()
