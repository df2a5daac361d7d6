"""Every write of SQL stands in the table of ``docs/locking.md``, and every line there is true."""

from __future__ import annotations

import re
from pathlib import Path

import app

ROOT = Path(next(iter(app.__path__))).parent
PAGE = (ROOT / "docs" / "locking.md").read_text(encoding="utf-8")

_WRITE = re.compile(
    r"\b(?:insert\s+into|delete\s+from|(?<!for )(?<!key )(?<!do )update)\s+(makeit3d\.\w+|\{[\w.]+\})", re.IGNORECASE
)
_ROW = re.compile(r"^\| (`makeit3d\.\w+`|asset tables) \| ([^|]+) \|", re.MULTILINE)
_PATH = re.compile(r"`(app/[\w./]+)`")
ASSET_TABLES = "asset tables"


def writes() -> set[tuple[str, str]]:
    """(path, table) of every write in the product."""
    paths = [*ROOT.glob("app/migrations/*.sql")]
    for package in ("db", "queue", "calls"):
        paths.extend(ROOT.glob(f"app/{package}/**/*"))
    return {
        (str(path.relative_to(ROOT)), ASSET_TABLES if table.startswith("{") else table)
        for path in paths
        if path.suffix in (".sql", ".py")
        for table in _WRITE.findall(path.read_text(encoding="utf-8"))
    }


def allowed() -> list[tuple[str, str]]:
    """(path or its beginning, table) of every line of the page."""
    return [(path, table.strip("`")) for table, paths in _ROW.findall(PAGE) for path in _PATH.findall(paths)]


def test_every_write_is_allowed() -> None:
    rows = allowed()
    assert len(rows) > 20
    strange = {
        (path, table)
        for path, table in writes()
        if not any(path.startswith(prefix) and table == name for prefix, name in rows)
    }
    assert strange == set()


def test_no_line_is_stale() -> None:
    found = writes()
    stale = [row for row in allowed() if not any(path.startswith(row[0]) and table == row[1] for path, table in found)]
    assert stale == []


def test_no_sql_in_python_is_forgotten() -> None:
    section = PAGE[PAGE.index("## SQL that still stands in Python") :]
    assert set(_PATH.findall(section)) == {path for path, _ in writes() if path.endswith(".py")}


def test_every_table_has_a_writer() -> None:
    made = re.findall(r"create table (makeit3d\.\w+)", "".join(p.read_text() for p in ROOT.glob("app/**/*.sql")))
    assert set(made) | {"makeit3d.migrations", ASSET_TABLES} == {table for _, table in allowed()}
