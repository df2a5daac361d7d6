"""A connection goes back to the pool as it is, so nothing may change a session of the pool."""

from __future__ import annotations

import re
from pathlib import Path

import app

_CHANGES = re.compile(
    r"\bset\s+session\b|\bset_config\s*\(|\bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(|\bdeclare\s+\w+\s+cursor\b"
    r"|\badd_listener\s*\(|\bcreate\s+temp|[\"']\s*(?:set\s+(?!local\b)[a-z_]+\s*(?:=|to\b)|listen\s)",
)
_OWN_CONNECTIONS = {"db/listener.py", "db/doctor.py", "db/migrate.py"}  # they belong to no pool and are closed


def test_no_statement_changes_a_session() -> None:
    root = Path(app.__file__).parent
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0] not in ("sandbox", "embedded")
        and _CHANGES.search(path.read_text(encoding="utf-8"))
    }
    assert found == _OWN_CONNECTIONS


def test_what_would_change_one_is_recognised() -> None:
    for text in ('"set statement_timeout = 1"', "select pg_advisory_lock(1)", 'c.add_listener("x", f)', '"listen x"'):
        assert _CHANGES.search(text), text
    for text in ('"set local enable_bitmapscan = off"', "pg_advisory_xact_lock(1)", "update jobs set status = 1"):
        assert not _CHANGES.search(text), text
