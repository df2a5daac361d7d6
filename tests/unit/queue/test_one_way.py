"""The status of a job is written by the queue and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import app

APP = Path(next(iter(app.__path__)))

_SET = re.compile(
    r"\bupdate\s+makeit3d\.jobs\b(?:\s+\w+)?\s+set\s+(?P<set>.*?)(?:\bfrom\b|\bwhere\b|\breturning\b|$)", re.DOTALL
)
_STATUS = re.compile(r"(?:^|,)\s*status\s*=")
_INSERT = re.compile(r"\binsert\s+into\s+makeit3d\.jobs\b")


def writes_status(text: str) -> bool:
    return bool(_INSERT.search(text)) or any(_STATUS.search(found["set"]) for found in _SET.finditer(text))


def test_nobody_else_writes_the_status_of_a_job() -> None:
    texts = [path for ending in ("py", "sql") for path in APP.rglob(f"*.{ending}")]
    writers = {path.relative_to(APP).parts[0] for path in texts if writes_status(path.read_text())}
    assert writers == {"queue"}


def test_what_the_search_finds() -> None:
    assert writes_status("update makeit3d.jobs j set\n  worker_id = null,\n  status = 'failed' where true")
    assert writes_status("with x as (insert into makeit3d.jobs (id) values (1)) select")
    assert not writes_status("update makeit3d.jobs set slot = 'lent' where status = 'running'")
    assert not writes_status("update makeit3d.jobs j set waiting_for = case when j.status = 'queued' then null end")
