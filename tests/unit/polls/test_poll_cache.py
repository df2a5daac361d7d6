"""What the cache of polls may keep and for how long, by a clock that the tests turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from app.services.poll_cache import CONFIRMED_SECONDS, LONGEST_SECONDS, PollCache, Reading
from hypothesis import given, settings
from hypothesis import strategies as st

ME, OTHER = UUID(int=1), UUID(int=2)
TASK, JOB = "task-0001", "7d1c2f0e-0000-4000-8000-000000000001"


@dataclass
class Desk:
    """A cache that hears, and its clock."""

    now: float = 1000.0
    entries: int = 100
    bytes: int = 10_000_000
    cache: PollCache[str] = field(init=False)

    def __post_init__(self) -> None:
        self.cache = PollCache(clock=lambda: self.now, most_entries=self.entries, most_bytes=self.bytes)
        self.cache.confirmed(self.now)

    def store(self, answer: str, id: str = TASK, *, user: UUID = ME, reading: Reading | None = None) -> bool:  # noqa: A002
        reading = reading or self.cache.begin()
        return self.cache.store(reading, user, id, task_id=TASK, answer=answer, size=len(answer))

    def later(self, seconds: float, *, heard: bool = True) -> None:
        self.now += seconds
        if heard:
            self.cache.confirmed(self.now)


def test_an_answer_is_its_owners_and_of_the_id_as_it_was_asked() -> None:
    desk = Desk()
    assert desk.store("mine")
    assert desk.cache.find(ME, TASK) == "mine"
    assert desk.cache.find(OTHER, TASK) is None
    assert desk.cache.find(ME, TASK.upper()) is None


def test_a_change_ends_all_entries_of_its_task_and_no_other() -> None:
    desk = Desk()
    desk.store("by task")
    desk.store("by job", JOB)
    desk.cache.store(desk.cache.begin(), ME, "task-0002", task_id="task-0002", answer="another", size=1)
    desk.cache.changed(TASK)
    assert [desk.cache.find(ME, id_) for id_ in (TASK, JOB, "task-0002")] == [None, None, "another"]


def test_a_job_whose_id_becomes_a_task_is_not_answered_from_before() -> None:
    desk = Desk()
    desk.store("by job", JOB)
    desk.cache.changed(JOB)
    assert desk.cache.find(ME, JOB) is None


def test_a_read_that_began_before_a_change_stores_nothing() -> None:
    desk = Desk()
    by_task, by_job = desk.cache.begin(), desk.cache.begin()
    desk.cache.changed(TASK)
    after = desk.cache.begin()
    assert not desk.store("was", reading=by_task)
    assert not desk.store("was", JOB, reading=by_job)
    assert desk.store("is", reading=after)
    assert desk.cache.find(ME, TASK) == "is"


def test_a_change_of_another_task_spoils_no_read() -> None:
    desk = Desk()
    reading = desk.cache.begin()
    desk.cache.changed("task-0002")
    assert desk.store("is", reading=reading)


def test_after_more_changes_than_are_remembered_reads_under_way_store_nothing() -> None:
    desk = Desk()
    reading = desk.cache.begin()
    desk.cache.changed(TASK)
    for number in range(5000):
        desk.cache.changed(f"flood-{number:04}")
    assert not desk.store("was", reading=reading)
    assert desk.store("is")


def test_an_entry_lives_from_the_beginning_of_its_read() -> None:
    desk = Desk()
    reading = desk.cache.begin()
    desk.later(LONGEST_SECONDS - 1)
    assert desk.store("slow", reading=reading)
    desk.later(0.5)
    assert desk.cache.find(ME, TASK) == "slow"
    desk.later(0.5)
    assert desk.cache.find(ME, TASK) is None
    assert not desk.store("too slow", reading=reading)


def test_nothing_is_served_or_kept_unless_the_listener_was_confirmed() -> None:
    desk = Desk()
    desk.store("known")
    desk.later(CONFIRMED_SECONDS, heard=False)
    assert desk.cache.find(ME, TASK) == "known"
    desk.later(0.1, heard=False)
    assert desk.cache.find(ME, TASK) is None
    assert not desk.store("kept", JOB)
    desk.cache.confirmed(desk.now)  # nothing was told meanwhile: it still holds
    assert desk.cache.find(ME, TASK) == "known"
    desk.cache.confirmed(desk.now - 10)  # an echo of before that comes late takes nothing back
    assert desk.cache.find(ME, TASK) == "known"


def test_a_lost_listener_takes_everything_and_the_reads_under_way() -> None:
    desk = Desk()
    desk.store("known")
    reading = desk.cache.begin()
    desk.cache.lost()
    assert (len(desk.cache), desk.cache.bytes) == (0, 0)
    desk.cache.confirmed(desk.now)
    assert desk.cache.find(ME, TASK) is None
    assert not desk.store("was", reading=reading)
    assert desk.store("is")


@pytest.mark.parametrize(("entries", "size"), [(50, 10_000_000), (100_000, 60_000)])
def test_a_flood_of_ids_takes_the_room_it_is_given_and_no_more(entries: int, size: int) -> None:
    desk = Desk(entries=entries, bytes=size)
    desk.store("often")
    for number in range(3000):
        desk.store("x", f"flood-{number:04}")
        assert desk.cache.find(ME, TASK) == "often"  # the one used last is the last to go
        assert len(desk.cache) <= entries
        assert desk.cache.bytes <= size
    desk.cache.changed(TASK)
    assert (len(desk.cache), desk.cache.bytes) == (0, 0)


def test_what_is_old_makes_room() -> None:
    desk = Desk()
    for number in range(40):
        desk.store("x", f"flood-{number:04}")
    desk.later(LONGEST_SECONDS)
    desk.store("new")
    assert len(desk.cache) == 1


@dataclass
class _Truth:
    """A task's versions with the time of their commits, and hints that are late or never come."""

    version: int = 0
    committed: dict[int, float] = field(default_factory=dict[int, float])


_PAUSES = {"wait": 0.9, "stall": CONFIRMED_SECONDS + 0.1}
_STEPS = st.lists(
    st.sampled_from(["begin", "end", "commit", "hint", "local", "poll", "wait", "stall", "echo", "lose"]), max_size=60
)


@given(_STEPS)
@settings(max_examples=400, deadline=None)
def test_no_order_of_events_serves_what_is_too_old(steps: list[str]) -> None:
    """Whatever happens, a poll gives a version that was current at most ``LONGEST_SECONDS`` ago, current when the last
    hint that was heard was sent, and never one that this process itself had replaced."""
    desk, truth = Desk(), _Truth(committed={0: 0.0})
    reading: tuple[Reading, int] | None = None
    pending: list[int] = []
    least = 0  # no poll may give an older version from now on
    for step in steps:
        desk.now += _PAUSES.get(step, 0.0)
        match step:
            case "begin":
                reading = (desk.cache.begin(), truth.version)
            case "end" if reading is not None:
                desk.cache.store(reading[0], ME, TASK, task_id=TASK, answer=str(reading[1]), size=1)
                reading = None
            case "commit" | "local":
                truth.version += 1
                truth.committed[truth.version] = desk.now
                if step == "local":
                    desk.cache.changed(TASK)
                    least = truth.version
                pending.append(truth.version)
            case "hint" if pending:
                least = max(least, pending.pop(0))
                desk.cache.changed(TASK)
            case "echo":
                desk.cache.confirmed(desk.now)
            case "lose":
                pending.clear()
                desk.cache.lost()
                least = truth.version
            case _:
                pass
        found = desk.cache.find(ME, TASK)
        if found is not None:
            version = int(found)
            assert version >= least
            replaced = truth.committed.get(version + 1)
            assert replaced is None or desk.now - replaced < LONGEST_SECONDS


def test_users_ids_never_meet() -> None:
    desk = Desk(entries=10_000)
    users = [uuid4() for _ in range(50)]
    for user in users:
        desk.store(str(user), user=user)
    assert [desk.cache.find(user, TASK) for user in users] == [str(user) for user in users]
