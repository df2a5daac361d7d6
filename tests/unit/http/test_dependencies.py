"""What the framework calls for a request runs on the loop: a thread costs more than most answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.main import create_app
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from tests.integration.factories import settings_for


def called(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for inner in dependant.dependencies:
        yield from called(inner)


def runs_on_the_loop(call: Callable[..., Any]) -> bool:
    by_call = None if inspect.isclass(call) else getattr(call, "__call__", None)  # noqa: B004 - an object's own
    return any(inspect.iscoroutinefunction(found) or inspect.isasyncgenfunction(found) for found in (call, by_call))


def test_no_route_waits_for_a_thread(tmp_path: Path) -> None:
    app = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none", tmp_path))
    routes = [found.original_route for found in iter_route_contexts(app.routes)]
    ours = [route for route in routes if isinstance(route, APIRoute)]
    assert "/tasks/{id}/status" in {route.path for route in ours}
    for route in ours:
        for call in called(route.dependant):
            assert runs_on_the_loop(call), (route.path, call)
