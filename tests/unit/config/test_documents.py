"""Documents that repeat what the code says are held to it."""

from __future__ import annotations

import re
from pathlib import Path

from app.errors import ErrorCode
from app.services.doctor.findings import Code

REPOSITORY = Path(__file__).resolve().parents[3]


def test_the_error_table_is_the_catalogue() -> None:
    text = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \| (yes|no) \|$", text, re.MULTILINE)
    wanted = [(e.code, str(e.status), e.title, "yes" if e.retry_helps else "no") for e in ErrorCode]
    assert rows == wanted


def test_the_runbook_has_every_finding_of_the_doctor() -> None:
    text = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (error|warning) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    entries = [code.value for code in Code]
    assert rows == [(entry.code, str(entry.severity), entry.meaning, entry.remedy) for entry in entries]
    assert len({entry.code for entry in entries}) == len(entries)


def test_the_runbook_knows_every_error_of_the_log_and_no_other_line() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (REPOSITORY / "app").rglob("*.py")
        if "sandbox" not in path.parts  # a stand-in of no operator
    )
    logged = dict.fromkeys(re.findall(r"log\.(?:info|warning|error|exception)\(\s*\"(\w+)\"", code))
    errors = set(re.findall(r"log\.(?:error|exception)\(\s*\"(\w+)\"", code))
    text = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
    signs = re.findall(r"^\| log ((?:`\w+`(?:, )?)+)", text, re.MULTILINE)
    told = {name for sign in signs for name in re.findall(r"`(\w+)`", sign)}
    assert errors - told == set()
    assert {name for name in told if name not in logged and not name.startswith("makeit3d_")} == set()


def test_codes_are_unique() -> None:
    assert len({error.code for error in ErrorCode}) == len(list(ErrorCode))
