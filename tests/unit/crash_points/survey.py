"""Reads the engine's code: every commit, send and transfer, and whether it lies within a named boundary."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import app
import app.db
from app.db.sql import Statement

ROOT = Path(next(iter(app.__path__))).parent
ENGINE = ("app/services", "app/calls", "app/tasks", "app/job_types", "app/task_types")
# modules whose statements have no cases of their own: their callers have the points
STATEMENTS = ("app.calls.journal", "app.calls.orphans", "app.queue.numbers", "app.queue.permits", "app.queue.waits")

# statements that change something: not "for update", "no key update" or "updated_at"
_WRITING = re.compile(
    r"\binsert\s+into\b|(?<!for )(?<!key )(?<!do )\bupdate\s+\S+\s+(\w\s+)?set\b|\bdelete\s+from\b|pg_notify"
)

_PAYS = re.compile(r"(^self|calls|_executor)$")
_SQL = ("app.db.", *STATEMENTS)

# what goes over a network, by whom it is asked of and how
_TRANSFERS = {
    "provider": {"send", "prepare", "poll", "download", "find_submitted", "decode"},
    "storage": {"upload", "remove"},
    "queue": {"accept", "claim", "finish", "requeue", "cancel", "erase"},
}


@dataclass(frozen=True, slots=True)
class Crossing:
    """One call that commits, sends or transfers."""

    path: str
    line: int
    function: str
    call: str
    boundary: str | None

    def __str__(self) -> str:
        return f"{self.path}:{self.line} {self.function}: {self.call}"


def writers() -> frozenset[str]:
    """``module.function`` of everything in app.db and ``STATEMENTS`` that writes, itself or through what it calls; of
    the queue, all."""
    # each through the queue
    found = {"maintenance.sweep", "maintenance.expire_stranded", "maintenance.advance_dependents"}
    # the audit writes nothing: its snapshot is read-only
    names = [f"app.db.{info.name}" for info in pkgutil.iter_modules(app.db.__path__) if not info.ispkg]
    for full_name in (*names, *STATEMENTS):
        module = importlib.import_module(full_name)
        for name, value in vars(module).items():
            if isinstance(value, FunctionType) and value.__module__ == module.__name__ and _writes(value, set()):
                found.add(f"{full_name.rpartition('.')[2]}.{name}")
    return frozenset(found)


def _writes(function: FunctionType, seen: set[FunctionType]) -> bool:
    if function in seen:
        return False
    seen.add(function)
    for name, constant in _mentioned(function.__code__):
        value: Any = function.__globals__.get(name) if name is not None else constant
        if isinstance(value, str) and _WRITING.search(value):
            return True
        if function.__module__ in STATEMENTS and _is_statement_that_writes(function, value):
            return True
        if isinstance(value, FunctionType) and value.__module__.startswith(_SQL) and _writes(value, seen):
            return True
    return any(_writes(helper, seen) for module, helper in _through_modules(function) if module.startswith(_SQL))


def _is_statement_that_writes(function: FunctionType, value: object) -> bool:
    """``value`` is a statement of the module, or the name of one."""
    if isinstance(value, str):
        value = function.__globals__["_SQL"].get(value)
    return isinstance(value, Statement) and value.writes


def _mentioned(code: CodeType) -> Iterator[tuple[str | None, Any]]:
    for name in code.co_names:
        yield name, None
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _mentioned(constant)
        else:
            yield None, constant


def _through_modules(function: FunctionType) -> Iterator[tuple[str, FunctionType]]:
    """What ``module.helper(…)`` in the function may mean."""
    names = {name for name, _ in _mentioned(function.__code__) if name is not None}
    for name in names:
        module = function.__globals__.get(name)
        if getattr(module, "__spec__", None) is not None:
            for helper in names:
                value = getattr(module, helper, None)
                if isinstance(value, FunctionType):
                    yield value.__module__, value


def crossings() -> list[Crossing]:
    """All of the engine."""
    known = writers()
    return [
        crossing
        for folder in ENGINE
        for path in sorted((ROOT / folder).rglob("*.py"))
        if f"{folder.replace('/', '.')}.{path.stem}" not in STATEMENTS
        for crossing in crossings_in(path.read_text(), str(path.relative_to(ROOT)), known)
    ]


def crossings_in(source: str, path: str, known: frozenset[str]) -> list[Crossing]:
    tree = ast.parse(source)
    names = _database_names(tree)
    return list(_walk(tree, path, "", None, names, known))


def _database_names(tree: ast.Module) -> dict[str, str]:
    """What a name of the file stands for: ``claims`` → ``claims``, ``settle`` → ``settle.settle``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                name = alias.asname or alias.name
                if node.module == "app.db" or f"{node.module}.{alias.name}" in STATEMENTS:
                    names[name] = alias.name
                elif node.module == "app.queue.maintenance":
                    names[name] = f"maintenance.{alias.name}"
                elif node.module.startswith(_SQL):
                    names[name] = f"{node.module.rpartition('.')[2]}.{alias.name}"
    return names


def _walk(
    node: ast.AST, path: str, function: str, boundary: str | None, names: dict[str, str], known: frozenset[str]
) -> Iterator[Crossing]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function, boundary = f"{function}.{node.name}".lstrip("."), None  # runs when it is called, not where it stands
    elif isinstance(node, ast.ClassDef):
        function = node.name
    elif isinstance(node, ast.With):
        boundary = next((name for item in node.items if (name := _boundary(item.context_expr))), boundary)
    elif isinstance(node, ast.Call) and (call := _crossing(node, names, known)) is not None:
        yield Crossing(path, node.lineno, function, call, boundary)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, path, function, boundary, names, known)


def _boundary(expression: ast.expr) -> str | None:
    match expression:
        case ast.Call(func=ast.Name("boundary"), args=[ast.Attribute(value=ast.Name("Boundary"), attr=name), *_]):
            return name
        case ast.IfExp(body=body):
            return _boundary(body)
        case _:
            return None


def _crossing(node: ast.Call, names: dict[str, str], known: frozenset[str]) -> str | None:
    match node.func:
        case ast.Name(name) if names.get(name) in known:
            return names[name]
        case ast.Attribute(value=ast.Name(module), attr=name) if f"{names.get(module)}.{name}" in known:
            return f"{names[module]}.{name}"
        case ast.Attribute(value=asked, attr="execute") if _PAYS.search(ast.unparse(asked)):
            return None  # PaidCalls and its executor, which have the points themselves
        case ast.Attribute(value=asked, attr="execute" | "transaction" | "in_transaction" as name):
            return f"{ast.unparse(asked)}.{name}"
        case ast.Attribute(attr="send_task"):
            return "celery.send_task"
        case ast.Attribute(value=asked, attr=name):
            whom = ast.unparse(asked).lower()
            return next(
                (f"{kind}.{name}" for kind, verbs in _TRANSFERS.items() if name in verbs and kind in whom), None
            )
        case _:
            return None
