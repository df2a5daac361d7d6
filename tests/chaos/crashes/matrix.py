"""The cases: each point of a job's life × each operation that reaches it × how often in a row a process dies there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.domain.crash_points import Boundary, CrashPoint, Side
from app.domain.operations import Operation

IMAGES = (Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE)
MODELS = (Operation.TEXT_TO_MODEL, Operation.IMAGE_TO_MODEL, Operation.REFINE_MODEL)
BOTH = (Operation.SKETCH_TO_MODEL,)  # a concept, then a model from it

EVERY_JOB = (
    Boundary.CLAIM,
    Boundary.INTENT,
    Boundary.SEND,
    Boundary.SUBMITTED,
    Boundary.BREAKER,
    Boundary.ANNOUNCE,
    Boundary.UPLOAD,
    Boundary.SETTLE,
)
IMAGE_JOB = (Boundary.DECODE, Boundary.RESULT)
MODEL_JOB = (Boundary.PREPARE, Boundary.POLL, Boundary.PROGRESS, Boundary.BOOK, Boundary.DOWNLOAD)
FIRST_STEP = (Boundary.NEXT_STEP,)
# of the worker process, whatever it works on; no task is known yet before a claim
PROCESS = (
    Boundary.CLAIM,
    Boundary.ALIVE,
    Boundary.TAKE_BACK,
    Boundary.PROMOTE,
    Boundary.ADOPT,
    Boundary.FREE,
    Boundary.GIVE_UP,
    Boundary.RING,
)
API = (Boundary.ACCEPT, Boundary.RING)

EXCEPTIONS = {
    Boundary.RELEASE: "a claim whose answer was lost is no state of a job: tests/chaos/test_database_answers_lost.py",
    # met only by calls that go wrong, which no case of the matrix does yet
    Boundary.REFUSED: "dead before or after its intent: tests/integration/test_departures.py",
    Boundary.UNKNOWN: "a lost answer is found again: tests/chaos/test_provider_faults.py",
    Boundary.LOOK: "asks without writing; the next look is the same: tests/chaos/test_provider_results.py",
    Boundary.REMOVE: "only jobs that ended without their files get there: tests/chaos/test_cancel.py",
}


@dataclass(frozen=True, slots=True)
class Case:
    operation: Operation
    point: CrashPoint
    times: int

    def __str__(self) -> str:
        return f"{self.operation.value}-{self.point}-{self.times}"


def boundaries_of(operation: Operation) -> tuple[Boundary, ...]:
    """What a job of the operation passes on its way, when all goes well but for the crash."""
    if operation in IMAGES:
        return (*EVERY_JOB, *IMAGE_JOB)
    if operation in MODELS:
        return (*EVERY_JOB, *MODEL_JOB)
    return (*EVERY_JOB, *IMAGE_JOB, *MODEL_JOB, *FIRST_STEP)


NOBODYS = CrashPoint(Side.BEFORE, Boundary.CLAIM)


def points(boundaries: Iterable[Boundary]) -> list[CrashPoint]:
    """Those that know whose they are."""
    return [point for point in all_points(boundaries) if point != NOBODYS]


def all_points(boundaries: Iterable[Boundary]) -> list[CrashPoint]:
    return [CrashPoint(side, boundary) for boundary in boundaries for side in Side]


def cases(operations: Sequence[Operation], *, full: bool) -> list[Case]:
    """All of them once and three times in a row; or each point with one of the operations, in turn, once or thrice."""
    if full:
        everything = ((operation, points(boundaries_of(operation))) for operation in operations)
        return [Case(operation, point, n) for operation, those in everything for point in those for n in (1, 3)]
    some: list[Case] = []
    for index, point in enumerate(points(boundaries_of(operations[0]))):
        turn, again = index % len(operations), (index // len(operations)) % 2
        some.append(Case(operations[turn], point, 3 if again else 1))
    return some
