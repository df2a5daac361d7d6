"""The cases: each point of a job's life × each operation that reaches it × how often in a row a process dies there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.domain.crash_points import Boundary, CrashPoint, Side
from app.domain.operations import Operation
from app.errors import ErrorCode

IMAGES = (Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE)
MODELS = (Operation.TEXT_TO_MODEL, Operation.IMAGE_TO_MODEL, Operation.REFINE_MODEL)
BOTH = (Operation.SKETCH_TO_MODEL,)  # a concept, then a model from it

UNKNOWN = ErrorCode.PROVIDER_OUTCOME_UNKNOWN

EVERY_JOB: tuple[str, ...] = (
    Boundary.CLAIM,
    Boundary.INTENT,
    Boundary.SEND,
    Boundary.SUBMITTED,
    Boundary.BREAKER,
    "announce_file",
    Boundary.UPLOAD,
    Boundary.SETTLE,
)
IMAGE_JOB = (Boundary.DECODE, Boundary.RESULT)
MODEL_JOB = (Boundary.PREPARE, Boundary.POLL, Boundary.PROGRESS, Boundary.BOOK, Boundary.DOWNLOAD)
FIRST_STEP = (Boundary.NEXT_STEP,)
WITH_PICTURES = (Operation.IMAGE_TO_IMAGE, Operation.IMAGE_TO_MODEL, *BOTH)
INPUTS = (Boundary.SLOT,)
# of the worker process, whatever it works on; no task is known yet before a claim
PROCESS: tuple[str, ...] = (
    Boundary.CLAIM,
    "renew_worker",
    "bury_workers",
    Boundary.TAKE_BACK,
    Boundary.PROMOTE,
    Boundary.ADOPT,
    Boundary.FREE,
    Boundary.GIVE_UP,
    Boundary.RING,
)
# where part of the matrix has processes die three times running: what is the same for all, the image jobs show
PAYING = (Boundary.PREPARE, Boundary.INTENT, Boundary.SEND, Boundary.SUBMITTED, Boundary.LOOK, Boundary.BOOK)
AGAIN = (
    dict.fromkeys(IMAGES, (*EVERY_JOB, *IMAGE_JOB)) | dict.fromkeys(MODELS, PAYING) | dict.fromkeys(BOTH, FIRST_STEP)
)
# in part, a request of two jobs meets those that its second one makes different; the rest is as with one job
SECOND_STEP = (Boundary.SETTLE, *MODEL_JOB, *FIRST_STEP)
API = (Boundary.ACCEPT, Boundary.RING)

# cases of their own, among the tests
APART = (Boundary.REMOVE, Boundary.RELEASE, "advance_dependents")


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault that the provider has for the job's first paid call, and what a job passes because of it."""

    name: str
    where: str
    kind: str
    boundaries: tuple[Boundary, ...]
    end: ErrorCode | None = None  # how the job fails; None where it is completed all the same


# nobody can look a call of OpenAI's up
OPENAI_TROUBLES = (
    Trouble("refused", "openai", "rate_limit", (Boundary.REFUSED,)),
    Trouble("answer-lost", "openai", "reset_after", (Boundary.UNKNOWN, Boundary.GIVE_UP), end=UNKNOWN),
)
# Tripo's are found in its listing, or it proves that nothing was accepted, and it is sent again
TRIPO_TROUBLES = (
    Trouble("refused", "tripo.submit", "rate", (Boundary.REFUSED,)),
    Trouble("answer-lost", "tripo.submit", "reset_after", (Boundary.UNKNOWN, Boundary.LOOK)),
    Trouble("never-arrived", "tripo.submit", "reset_before", (Boundary.REFUSED,)),
    Trouble("banned", "tripo.task", "banned", (Boundary.BOOK,), end=ErrorCode.PROVIDER_CONTENT_REFUSED),
)
# a call without words of its own can not be struck alone; its way through the engine is that of text-to-model
WORDLESS = Operation.IMAGE_TO_MODEL


@dataclass(frozen=True, slots=True)
class Case:
    operation: Operation
    point: CrashPoint
    times: int
    trouble: Trouble | None = None

    def __str__(self) -> str:
        trouble = "" if self.trouble is None else f"-{self.trouble.name}"
        return f"{self.operation.value}{trouble}-{self.point}-{self.times}"

    @property
    def end(self) -> ErrorCode | None:
        """How the job fails; None where it is completed."""
        if self.trouble is None:
            return None
        if self.trouble.where == "openai" and self.point == CrashPoint(Side.BEFORE, Boundary.REFUSED):
            return UNKNOWN  # cut after its first byte: nobody is left who knows that it was refused
        return self.trouble.end


def boundaries_of(operation: Operation) -> tuple[str, ...]:
    """What a job of the operation passes on its way, when all goes well but for the crash."""
    every = (*EVERY_JOB, *INPUTS) if operation in WITH_PICTURES else EVERY_JOB
    if operation in IMAGES:
        return (*every, *IMAGE_JOB)
    if operation in MODELS:
        return (*every, *MODEL_JOB)
    return (*every, *IMAGE_JOB, *MODEL_JOB, *FIRST_STEP)


def troubles_of(operation: Operation) -> tuple[Trouble, ...]:
    if operation is WORDLESS:
        return ()
    return TRIPO_TROUBLES if operation in MODELS else OPENAI_TROUBLES


NOBODYS = CrashPoint(Side.BEFORE, Boundary.CLAIM)


def points(boundaries: Iterable[str]) -> list[CrashPoint]:
    """Those that know whose they are."""
    return [point for point in all_points(boundaries) if point != NOBODYS]


def all_points(boundaries: Iterable[str]) -> list[CrashPoint]:
    return [CrashPoint(side, boundary) for boundary in boundaries for side in Side]


def ways(operation: Operation) -> list[tuple[CrashPoint, Trouble | None]]:
    """Every point that a job of the operation can come to, and by what trouble."""
    plain: list[tuple[CrashPoint, Trouble | None]] = [(point, None) for point in points(boundaries_of(operation))]
    return plain + [(point, t) for t in troubles_of(operation) for point in points(t.boundaries)]


def cases(operations: Sequence[Operation], *, full: bool) -> list[Case]:
    """Each point with each operation that comes to it, once and three times in a row. In part, each point with one
    operation, in turn, and three times with the next one, where that makes a difference."""
    able: dict[tuple[CrashPoint, Trouble | None], list[Operation]] = {}
    for operation in operations:
        for way in ways(operation):
            able.setdefault(way, []).append(operation)
    found: list[Case] = []
    for turn, ((point, trouble), whose) in enumerate(able.items()):
        once, again = ([whose[at % len(whose)]] for at in (turn, turn + 1))
        if full:
            once = again = whose
        found += [Case(operation, point, 1, trouble) for operation in once if full or is_in_part(operation, point)]
        found += [Case(operation, point, 3, trouble) for operation in again if full or dies_again(operation, point)]
    return found


def is_in_part(operation: Operation, point: CrashPoint) -> bool:
    return operation not in BOTH or point.boundary in SECOND_STEP


def dies_again(operation: Operation, point: CrashPoint) -> bool:
    return point.boundary in AGAIN[operation]


def at_work(point: CrashPoint) -> Operation:
    """What is under way while processes die at a point of theirs, in turn; one that comes to it."""
    # the fault that has a job wait for its promotion is one of the image provider
    able = IMAGES if point.boundary == Boundary.PROMOTE else tuple(Operation)
    return able[all_points(PROCESS).index(point) % len(able)]


def api_cases(*, full: bool) -> list[Case]:
    """What is committed is not committed again: after it, a process dies once."""
    before, after = points([Boundary.ACCEPT])
    once = list(Operation) if full else [Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_MODEL, Operation.SKETCH_TO_MODEL]
    again = list(Operation) if full else [Operation.SKETCH_TO_MODEL]
    return [Case(operation, point, 1) for operation in once for point in (before, after)] + [
        Case(operation, before, 3) for operation in again
    ]
