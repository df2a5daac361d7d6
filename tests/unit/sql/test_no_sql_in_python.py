"""SQL stands in files of SQL: no string of a module of the product is a statement or a piece of one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import app
import pytest

ROOT = Path(next(iter(app.__path__))).parent

# The sandbox has no database. Why a module needs no file of SQL:
COMPOSED = {"app/queue/statements.py": "composes what the registered kinds of assets decide"}

_SQL = re.compile(
    r"""(?ix)
    \bselect\s+(distinct\s+)?[\w.*,\s()'"$:>-]*\bfrom\b | \bselect\s+\w+\( | \bselect\s+exists\b | \bselect\s+from\b
    | \binsert\s+into\s+\w | \bupdate\s+[\w.{}]+(\s+\w+)?\s+set\b | \bdelete\s+from\s+\w
    | \b(create|alter|drop)\s+(or\s+replace\s+)?(table|schema|index|function|view|policy|trigger|type)\s+["\w]
    | ^\s*(with|set\s+local|lock\s+table|truncate|explain|listen|notify)\s+\w+ (\s+as\s*\(|\s+to\b|\s*=|\s*$)
    """
)


def strings(source: str) -> Iterator[str]:
    """Every string of a module but its docstrings; those in f-strings with a name in each of their places."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=values):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in values)
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                yield text
            case _:
                pass


def holds_sql(source: str) -> bool:
    return any(_SQL.search(text) for text in strings(source))


def test_no_module_holds_a_statement() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "app").rglob("*.py")
        if "sandbox" not in path.relative_to(ROOT).parts and holds_sql(path.read_text(encoding="utf-8"))
    }
    assert found == set(COMPOSED)


@pytest.mark.parametrize(
    "line",
    [
        'await db.fetch("select id, name from makeit3d.jobs where id = $1", 1)',
        'await db.fetchval("select pg_advisory_lock($1)", 1)',
        'await db.execute(f"update makeit3d.{table} set x = 1")',
        'await db.execute(f"update makeit3d.jobs j set {what}")',
        'await db.execute("insert into makeit3d.jobs (id)" " values ($1)", 1)',
        'await db.execute("delete from makeit3d.jobs")',
        'await db.execute("create table makeit3d.things (id uuid)")',
        "await db.execute(\"set local lock_timeout = '5s'\")",
        'CTE = "with due as (select from makeit3d.jobs)"',
        'WHERE = "exists (select from makeit3d.jobs j where j.id = c.job_id)"',
    ],
)
def test_sql_is_seen(line: str) -> None:
    assert holds_sql(line)


@pytest.mark.parametrize(
    "line",
    [
        'raise ValueError("update the workers to the version that accepted these jobs")',
        'print("select one, delete the other, and create an account with it")',
        'def f():\n    """select id from jobs"""',
        'log.info("update this installation to the version that brought the migration")',
    ],
)
def test_plain_words_are_no_sql(line: str) -> None:
    assert not holds_sql(line)
