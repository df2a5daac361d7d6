"""A few processes that decode untrusted pictures, so that the serving process never does; the users take turns."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import asdict
from pathlib import Path
from uuid import UUID

import structlog

from app.config import Settings
from app.domain.pictures import Picture, PictureLimits
from app.errors import AppError, ErrorCode
from app.services.fair_gate import FairGate
from app.services.picture_process import READY, Action, PictureWork, ProcessLimits, read_reply
from app.tracing import detached, span

log = structlog.get_logger(__name__)

_PICTURES_PER_PROCESS = 200
_START_SECONDS = 60.0
_IDLE_SECONDS, _WAIT_PER_CPU_SECOND = 60.0, 5.0  # on a busy machine CPU time takes longer than itself
_BASE_BYTES = 768 * 1024 * 1024  # interpreter, libraries and the file
_BYTES_PER_PIXEL = 24  # a few copies on the way to a plain picture
_RETRY_AFTER_SECONDS = 5.0


class _Ended(Exception):
    """The process ended instead of replying."""


class _PictureProcess:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._pictures = 0
        self._busy = False

    @classmethod
    async def start(cls, limits: ProcessLimits) -> _PictureProcess:
        """Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            "app.services.picture_process",
            json.dumps(asdict(limits)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={},  # it decodes hostile bytes: no secret is in its reach
            start_new_session=True,  # a signal of the terminal is for us, and we end it
        )
        started = cls(process)
        try:
            async with asyncio.timeout(_START_SECONDS):
                ready = await started._line()
        except (TimeoutError, _Ended):
            ready = b""
        except BaseException:
            await started.end()
            raise
        if ready != READY:
            await started.end()
            raise OSError("the process that decodes pictures did not start")
        return started

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        ended = self._process.returncode is not None
        return not ended and not self._busy and self._pictures < _PICTURES_PER_PROCESS

    @property
    def ran_out_of_time(self) -> bool:
        return self._process.returncode == -signal.SIGXCPU

    async def ask(self, work: PictureWork) -> bytes:
        """The reply. Raises _Ended."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._pictures += 1
        self._busy = True
        try:
            self._process.stdin.write(work.as_line())
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            await self.end()
            raise _Ended from None
        reply = await self._line()
        self._busy = False
        return reply

    async def _line(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            await self._process.wait()
            raise _Ended
        return line

    async def end(self) -> None:
        """Kill it and wait for its end, which takes no time."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


class Decoders:
    """Processes start with the first picture. One that was killed or has had its share of pictures is replaced before
    its user's turn is over: nobody else pays for the start."""

    def __init__(self, settings: Settings) -> None:
        size = settings.picture_processes
        self._limits = ProcessLimits(
            cpu_seconds=settings.picture_cpu_seconds,
            memory_bytes=_BASE_BYTES + _BYTES_PER_PIXEL * settings.max_input_pixels,
        )
        self._patience = _IDLE_SECONDS + _WAIT_PER_CPU_SECOND * settings.picture_cpu_seconds
        self._gate = FairGate(size=size, per_user=max(1, size - 1))
        self._idle: list[_PictureProcess] = []
        self._all: set[_PictureProcess] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def pids(self) -> list[int]:
        return sorted(process.pid for process in self._all)

    async def check(self, path: Path, limits: PictureLimits, *, user_id: UUID | None) -> Picture:
        """As ``pictures.check_picture``; besides its errors raises AppError: SERVICE_UNAVAILABLE."""
        return _picture(await self._do("check", path, limits, user_id))

    async def normalise(self, path: Path, target: Path, limits: PictureLimits, *, user_id: UUID | None) -> Picture:
        """As ``pictures.normalise_picture``; besides its errors raises AppError: SERVICE_UNAVAILABLE."""
        return _picture(await self._do("normalise", path, limits, user_id, target))

    async def preview(self, path: Path, target: Path, limits: PictureLimits, *, user_id: UUID | None) -> None:
        """As ``pictures.make_preview``; besides its errors raises AppError: SERVICE_UNAVAILABLE."""
        await self._do("preview", path, limits, user_id, target)

    async def aclose(self) -> None:
        self._closed = True
        for task in self._replacing:
            task.cancel()
        await asyncio.gather(*self._replacing, return_exceptions=True)
        await asyncio.gather(*(process.end() for process in list(self._all)))
        self._all.clear()
        self._idle.clear()

    async def _do(
        self,
        action: Action,
        path: Path,
        limits: PictureLimits,
        user_id: UUID | None,
        target: Path | None = None,
    ) -> Picture | None:
        work = _work(action, path, limits, target)
        await self._gate.enter(user_id)
        process = None
        try:
            with span("decode_picture", action=action):
                for _ in range(2):
                    process = await self._next()
                    try:
                        async with asyncio.timeout(self._patience):
                            return read_reply(await process.ask(work))
                    except _Ended:
                        self._all.discard(process)
                        if process.ran_out_of_time:
                            raise _too_complex("Reading this picture takes too long.") from None
                        log.warning("picture_process_crashed", pid=process.pid, action=action)
                raise _too_complex("This picture can not be read.")
        except (OSError, TimeoutError) as error:
            if process is not None:
                await process.end()
            log.warning("picture_not_decoded", error=type(error).__name__)
            raise AppError(
                ErrorCode.SERVICE_UNAVAILABLE, "Pictures can not be read just now.", _RETRY_AFTER_SECONDS
            ) from None
        except asyncio.CancelledError:
            if process is not None:
                await process.end()  # before its caller takes the files away
            raise
        finally:
            self._give_back(process, user_id)

    async def _next(self) -> _PictureProcess:
        """Raises OSError."""
        while self._idle:
            process = self._idle.pop()
            if process.usable:
                return process
            self._all.discard(process)
        return await self._started()

    async def _started(self) -> _PictureProcess:
        if self._closed:
            raise OSError("closed")
        process = await _PictureProcess.start(self._limits)
        self._all.add(process)
        return process

    def _give_back(self, process: _PictureProcess | None, user_id: UUID | None) -> None:
        if process is not None and not process.usable:
            task = detached(self._replace(process, user_id))
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)
            return
        if process is not None:
            self._idle.append(process)
        self._gate.leave(user_id)

    async def _replace(self, process: _PictureProcess, user_id: UUID | None) -> None:
        try:
            await process.end()
            self._all.discard(process)
            self._idle.append(await self._started())
        except OSError as error:
            log.warning("picture_process_not_replaced", error=type(error).__name__)  # the next picture tries again
        finally:
            self._gate.leave(user_id)


def _work(action: Action, path: Path, limits: PictureLimits, target: Path | None) -> PictureWork:
    return PictureWork(
        action=action,
        source=str(path.absolute()),
        max_bytes=limits.max_bytes,
        max_pixels=limits.max_pixels,
        target="" if target is None else str(target.absolute()),
    )


def _picture(picture: Picture | None) -> Picture:
    assert picture is not None  # noqa: S101 - the process's own protocol
    return picture


def _too_complex(detail: str) -> AppError:
    return AppError(ErrorCode.INPUT_TOO_COMPLEX, detail)
