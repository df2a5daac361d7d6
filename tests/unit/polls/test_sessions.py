"""A connection goes back to the pool as it is, so nothing may change a session of the pool."""

from __future__ import annotations

import re
from pathlib import Path

import app

_IN_ANY_TEXT = (
    r"\bset\s+session\b|\bset_config\s*\(|\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(|\bdeclare\s+\w+\s+cursor\b"
    r"|\badd_listener\s*\(|\bcreate\s+temp"
)
_IN_A_FILE_OF_SQL = re.compile(_IN_ANY_TEXT)
_CHANGES = re.compile(_IN_ANY_TEXT + r"|[\"']\s*(?:set\s+(?!local\b)[a-z_]+\s*(?:=|to\b)|listen\s)")
_OWN_CONNECTIONS = {"db/listener.py", "db/doctor.py", "db/migrate.sql"}  # they belong to no pool and are closed


def test_no_statement_changes_a_session() -> None:
    root = Path(app.__file__).parent
    found = {
        str(path.relative_to(root))
        for pattern, suffix in ((_CHANGES, "*.py"), (_IN_A_FILE_OF_SQL, "*.sql"))
        for path in root.rglob(suffix)
        if path.relative_to(root).parts[0] not in ("sandbox", "embedded")
        and pattern.search(path.read_text(encoding="utf-8"))
    }
    assert found == _OWN_CONNECTIONS


def test_what_would_change_one_is_recognised() -> None:
    for text in ('"set statement_timeout = 1"', "select pg_advisory_lock(1)", 'c.add_listener("x", f)', '"listen x"'):
        assert _CHANGES.search(text), text
    for text in ('"set local enable_bitmapscan = off"', "pg_advisory_xact_lock(1)", "update jobs set status = 1"):
        assert not _CHANGES.search(text), text
