"""The processes that decode pictures: their limits, their ends, and whose picture is next."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from app.config import Settings
from app.domain.pictures import PictureLimits
from app.errors import AppError, ErrorCode
from app.services.decoders import Decoders
from PIL import Image, JpegImagePlugin, PngImagePlugin

from tests.unit.inputs.pictures import LIMITS, attacks, black_png, gradient, raw_png, saved

ANN, BOB = uuid4(), uuid4()
ENDLESS = PictureLimits(20_000_000, 10**9)


def settings(**changes: Any) -> Settings:  # noqa: ANN401 - settings by field name
    plain = {
        "supabase_url": "http://127.0.0.1:1",
        "supabase_service_key": "sb_secret_test",
        "database_url": "postgresql://nobody@localhost/unused",
        "redis_url": "redis://localhost",
        "openai_api_key": "sk-test",
        "tripo_api_key": "tsk_test",
    }
    return Settings.model_validate(plain | changes)


@pytest.fixture
async def decoders() -> AsyncGenerator[Decoders]:
    async with aclosing(Decoders(settings())) as opened:
        yield opened


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return saved(tmp_path / "small", gradient(), "PNG")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two seconds of work in a small file: the limit of a process is in whole seconds, rounded up."""
    path = tmp_path_factory.mktemp("pictures") / "long"
    path.write_bytes(black_png(20_000, 8_000, row_filter=4))
    return path


async def until(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not good():
            await asyncio.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def refused(decoders: Decoders, path: Path, limits: PictureLimits = LIMITS) -> AppError:
    with pytest.raises(AppError) as caught:
        await decoders.check(path, limits, user_id=ANN)
    return caught.value


async def test_no_process_before_the_first_picture(decoders: Decoders, small: Path) -> None:
    assert decoders.pids == []
    assert (await decoders.check(small, LIMITS, user_id=ANN)).width == 64
    assert len(decoders.pids) == 1


async def test_nothing_is_decoded_in_the_serving_process(
    decoders: Decoders, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoder(*_: object) -> None:
        pytest.fail("a picture was opened here")

    for kind in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile):
        monkeypatch.setattr(kind, "_open", decoder)
    assert (await decoders.check(small, LIMITS, user_id=ANN)).content_type == "image/png"
    assert (await decoders.normalise(small, tmp_path / "normal", LIMITS, user_id=ANN)).height == 48
    await decoders.preview(small, tmp_path / "preview", LIMITS, user_id=ANN)
    monkeypatch.undo()
    for name, kind in (("normal", "PNG"), ("preview", "WEBP")):
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == (kind, (64, 48))


async def test_refusals_are_told_as_they_are(decoders: Decoders, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"<html>")
    error = await refused(decoders, path)
    assert (error.error, error.detail) == (ErrorCode.INPUT_NOT_IMAGE, "PNG, JPEG and WebP are accepted.")
    path.write_bytes(attacks(1_000_000)["jpeg markers"])
    assert (await refused(decoders, path)).error is ErrorCode.INPUT_TOO_COMPLEX
    assert len(decoders.pids) == 1, "a refusal is no reason for a new process"


async def test_a_picture_that_takes_too_much_time_is_refused(small: Path, long: Path) -> None:
    async with aclosing(Decoders(settings(picture_cpu_seconds=1, max_input_pixels=200_000_000))) as decoders:
        await decoders.check(small, LIMITS, user_id=ANN)
        (first,) = decoders.pids
        error = await refused(decoders, long, ENDLESS)
        assert (error.error, error.error.retry_helps) == (ErrorCode.INPUT_TOO_COMPLEX, False)
        assert not alive(first)
        assert (await decoders.check(small, LIMITS, user_id=BOB)).width == 64


async def test_each_picture_has_the_time_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(black_png(4_000, 4_000))
    async with aclosing(Decoders(settings(picture_cpu_seconds=1))) as decoders:
        for _ in range(12):  # together more than a second
            await decoders.normalise(path, tmp_path / "b", ENDLESS, user_id=ANN)
        assert len(decoders.pids) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit memory")
async def test_a_picture_that_takes_too_much_memory_is_refused(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(raw_png(30_000, 20_000, bits=8, colour=2, rows=b"\x00" * 1_000))
    async with aclosing(Decoders(settings(max_input_pixels=65_536))) as decoders:
        assert (await refused(decoders, path, ENDLESS)).error is ErrorCode.INPUT_TOO_COMPLEX
        assert (await decoders.check(small, LIMITS, user_id=BOB)).width == 64


async def test_a_fresh_process_does_what_a_crashed_one_did_not(decoders: Decoders, small: Path) -> None:
    await decoders.check(small, LIMITS, user_id=ANN)
    (first,) = decoders.pids
    os.kill(first, signal.SIGSTOP)
    again = asyncio.create_task(decoders.check(small, LIMITS, user_id=ANN))
    await asyncio.sleep(0)
    os.kill(first, signal.SIGKILL)
    assert (await again).width == 64
    assert first not in decoders.pids


async def test_the_second_crash_is_the_pictures_fault(small: Path, long: Path) -> None:
    async with aclosing(Decoders(settings(max_input_pixels=200_000_000))) as decoders:
        work = asyncio.create_task(decoders.check(long, ENDLESS, user_id=ANN))
        crashed: set[int] = set()
        for _ in range(2):
            await until(lambda: bool(set(decoders.pids) - crashed))
            (pid,) = set(decoders.pids) - crashed
            os.kill(pid, signal.SIGKILL)
            crashed.add(pid)
        with pytest.raises(AppError) as caught:
            await work
        assert caught.value.error is ErrorCode.INPUT_TOO_COMPLEX
        assert (await decoders.check(small, LIMITS, user_id=ANN)).width == 64


async def test_a_process_is_replaced_after_its_share_of_pictures(decoders: Decoders, small: Path) -> None:
    await decoders.check(small, LIMITS, user_id=ANN)
    (first,) = decoders.pids
    for _ in range(200):
        await decoders.check(small, LIMITS, user_id=ANN)
    await until(lambda: first not in decoders.pids)
    assert not alive(first)


async def test_who_gives_up_leaves_no_file_and_no_work(long: Path, small: Path, tmp_path: Path) -> None:
    async with aclosing(Decoders(settings(max_input_pixels=200_000_000))) as decoders:
        await decoders.check(small, LIMITS, user_id=ANN)
        (first,) = decoders.pids
        work = asyncio.create_task(decoders.normalise(long, tmp_path / "target", ENDLESS, user_id=ANN))
        for _ in range(20):
            await asyncio.sleep(0)
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        assert work.cancelled()
        assert not alive(first)
        assert not (tmp_path / "target").exists()
        assert (await decoders.check(small, LIMITS, user_id=ANN)).width == 64


async def test_a_users_pictures_wait_for_that_users_alone(small: Path, long: Path) -> None:
    """Whatever one has queued, the other's are done first; in order of ends, whatever the time."""
    async with aclosing(Decoders(settings(max_input_pixels=200_000_000))) as decoders:
        ends: list[UUID] = []

        async def check(path: Path, user: UUID) -> None:
            await decoders.check(path, ENDLESS, user_id=user)
            ends.append(user)

        await check(small, BOB)
        ends.clear()
        flood = [asyncio.create_task(check(long, ANN)) for _ in range(50)]
        await asyncio.sleep(0)
        for _ in range(5):
            await check(small, BOB)
        assert ends.count(ANN) <= 5, "no more than one for each of the other's"
        assert len(decoders.pids) <= 2
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)


async def test_closing_ends_all_processes(small: Path, long: Path) -> None:
    decoders = Decoders(settings(max_input_pixels=200_000_000))
    busy = asyncio.create_task(decoders.check(long, ENDLESS, user_id=ANN))
    await decoders.check(small, LIMITS, user_id=BOB)
    await until(lambda: len(decoders.pids) == 2)
    pids = decoders.pids
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    await decoders.aclose()
    assert not any(map(alive, pids))
    with pytest.raises(AppError) as caught:
        await decoders.check(small, LIMITS, user_id=ANN)
    assert caught.value.error is ErrorCode.SERVICE_UNAVAILABLE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_a_process_knows_no_secret_and_holds_no_socket(
    decoders: Decoders, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "sb_secret_of_the_environment")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        await decoders.check(small, LIMITS, user_id=ANN)
        (pid,) = decoders.pids
        assert Path(f"/proc/{pid}/environ").read_bytes().strip(b"\x00") in (b"", b"LC_CTYPE=C.UTF-8")
        opened = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = [name for name in opened if name.startswith("socket:")]
    assert len(opened) <= 4
    assert len(sockets) <= 2  # asyncio's own pipe to it


PARENT = """
import asyncio, sys
from pathlib import Path
from app.services.decoders import Decoders
from tests.unit.inputs.test_decoders import ANN, BOB, ENDLESS, settings

async def main():
    decoders = Decoders(settings(max_input_pixels=200_000_000))
    await decoders.check(Path(sys.argv[1]), ENDLESS, user_id=ANN)
    busy = asyncio.create_task(decoders.check(Path(sys.argv[2]), ENDLESS, user_id=BOB))
    while len(decoders.pids) < 2:
        await decoders.check(Path(sys.argv[1]), ENDLESS, user_id=ANN)
    print(*decoders.pids, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_process_outlives_a_killed_parent(small: Path, long: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(small), str(long)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
        assert len(pids) == 2
        parent.kill()
    await until(lambda: not any(map(alive, pids)))
