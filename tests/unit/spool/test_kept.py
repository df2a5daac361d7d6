"""Paid results that storage refused stay on disk for their time, and no longer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from app.calls.spool import Spool

HOUR = 3600.0


def spool_in(directory: Path, *, keep_hours: float) -> Spool:
    spool = Spool(directory, max_bytes=100, host="here", keep_seconds=keep_hours * HOUR)
    spool.open()
    return spool


def kept_since(spool: Spool, directory: Path, hours: float) -> UUID:
    """A reply that was kept so many hours ago."""
    call_id = uuid4()
    (directory / f"{call_id}.reply").write_bytes(b"paid")
    assert spool.keep_reply(call_id, [1]) is not None
    then = time.time() - hours * HOUR
    os.utime(directory / f"{call_id}.kept", (then, then))
    return call_id


# a retry that began in the last moment has an hour more
@pytest.mark.parametrize(("keep_hours", "old"), [(24, 25.1), (2, 3.1), (48, 49.1)])
def test_a_result_is_removed_after_its_hours(tmp_path: Path, keep_hours: float, old: float) -> None:
    spool = spool_in(tmp_path, keep_hours=keep_hours)
    gone, kept = kept_since(spool, tmp_path, old), kept_since(spool, tmp_path, old - 0.2)
    spool.remove_expired()
    assert spool.all_kept() == [kept]
    assert not spool.has_reply(gone)
    assert spool.reply(kept).read_bytes() == b"paid"


def test_a_start_removes_what_is_too_old_and_keeps_the_rest(tmp_path: Path) -> None:
    """Other leftovers go after a day, whatever the setting."""
    spool = spool_in(tmp_path, keep_hours=48)
    kept_since(spool, tmp_path, 49.1)
    kept = kept_since(spool, tmp_path, 40)
    assert spool_in(tmp_path, keep_hours=48).all_kept() == [kept]


def test_what_is_kept_again_stays_no_longer(tmp_path: Path) -> None:
    spool = spool_in(tmp_path, keep_hours=24)
    call_id = kept_since(spool, tmp_path, 25.1)
    again = spool.keep_reply(call_id, [1])
    assert again is not None
    assert again.until.timestamp() < time.time()
    spool.remove_expired()
    assert spool.all_kept() == []
