"""The process in which untrusted pictures are decoded: ``python -m app.services.picture_process LIMITS``.

One request per line on its standard input, one reply per line on its standard output. It has limits of its own, knows
no secret and ends with whoever started it.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.domain import pictures
from app.domain.pictures import Picture, PictureLimits
from app.errors import AppError, ErrorCode

READY = b"ready\n"
Action = Literal["check", "normalise", "preview"]
_PR_SET_PDEATHSIG = 1
_NICE = 5  # who serves requests goes first


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """``cpu_seconds`` for one picture, ``memory_bytes`` of address space for the process."""

    cpu_seconds: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class PictureWork:
    """What is to be done with a picture; ``target`` is where the result goes."""

    action: Action
    source: str
    max_bytes: int
    max_pixels: int
    target: str = ""

    def as_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def read_reply(line: bytes) -> Picture | None:
    """The reply's picture, None for a preview. Raises AppError with the code that the process gave."""
    reply = json.loads(line)
    if reply["error"] is not None:
        raise AppError(ErrorCode.of(reply["error"]), reply["detail"])
    return None if reply["picture"] is None else Picture(**reply["picture"])


def main() -> None:
    """Serve until the standard input ends."""
    limits = ProcessLimits(**json.loads(sys.argv[1]))
    _end_with_parent()
    _limit(limits)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    replies.write(READY)
    for line in sys.stdin.buffer:
        _allow(limits.cpu_seconds)
        replies.write(json.dumps(_reply(json.loads(line))).encode() + b"\n")


def _reply(request: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        picture = _do(PictureWork(**request))
    except AppError as error:
        return {"picture": None, "error": error.error.code, "detail": error.detail}
    except MemoryError:
        detail = "Reading this picture takes too much memory."
        return {"picture": None, "error": ErrorCode.INPUT_TOO_COMPLEX.code, "detail": detail}
    return {"picture": None if picture is None else asdict(picture), "error": None, "detail": None}


def _do(work: PictureWork) -> Picture | None:
    source, target = Path(work.source), Path(work.target)
    limits = PictureLimits(work.max_bytes, work.max_pixels)
    match work.action:
        case "check":
            return pictures.check_picture(source, limits)
        case "normalise":
            return pictures.normalise_picture(source, target, limits)
        case "preview":
            pictures.make_preview(source, target, limits)
            return None


def _end_with_parent() -> None:
    """Also in the middle of a picture, where the end of the input is not seen; Linux alone can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(limits: ProcessLimits) -> None:
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))


def _allow(cpu_seconds: int) -> None:
    """Time for one more picture. The limit counts from the start of the process; passing it ends the process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + cpu_seconds, most))


if __name__ == "__main__":
    main()
