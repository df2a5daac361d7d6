"""The HTTP application."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app import problems, tracing
from app.ai_clients.registry import load_settings
from app.config import Settings
from app.container import ApiContainer, build_registry
from app.deps import authenticate
from app.middleware import AuthenticatedBodies, BodyLimit, BodyTime, HeadAsGet, RequestContext, TrailingSlash
from app.observability import configure_logging
from app.polls import Polls
from app.registry import Registry
from app.routers import assets, events, generation, operations, task_types, tasks, uploads
from app.routers.multipart import FORM_BYTES
from app.schemas.generation import creation_schemas
from app.schemas.problems import Fault, Problem
from app.schemas.tasks import Result, result_schema
from app.task_types.catalogue import Catalogue
from app.tasks.bells import celery_bells

_JSON_BYTES = 1024 * 1024
_JSON_SECONDS = 30.0
_DESCRIPTION = """A gateway between apps on Supabase and paid AI media services: concept images and 3D models,
paid once, never lost. Errors are RFC 9457 problem documents; `GET /problems` lists their codes."""


class _Application(FastAPI):
    """Polls are answered outside of all that the framework puts around an application."""

    polls: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.polls(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings | None = None,
    *,
    registry: Registry | None = None,
    open_services: Callable[[Settings], Awaitable[ApiContainer]] | None = None,
) -> FastAPI:
    """The application of a process. Without settings it reads them and sets up logging, as servers want it.

    ``registry`` is what it can do; normally all that the product has. ``open_services`` makes what the routers use,
    once the loop runs; normally all of ApiContainer.
    Raises ConfigurationError.
    """
    if settings is None:
        settings = load_settings() if registry is None else registry.providers.settings.load()
        configure_logging(settings)
        tracing.configure(settings, "makeit3d-api")
    registry = registry or build_registry(sketch_renderer=settings.sketch_renderer)
    app = _Application(
        title="MakeIt3D (sandbox)" if settings.is_sandbox else "MakeIt3D",
        version=version("makeit3d-bff"),
        description=_DESCRIPTION,
        lifespan=_lifespan(settings, registry, open_services or partial(_open_services, registry)),
        redoc_url=None,
        redirect_slashes=False,
        # the framework's own would tell what users wrote: inputs that are refused, messages of exceptions
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    app.include_router(generation.routes(registry.task_types))
    for module in (tasks, task_types, events, uploads, assets, operations):
        app.include_router(module.router)
    upload_bytes = max(settings.max_input_bytes, settings.max_model_bytes) + FORM_BYTES
    app.add_middleware(AuthenticatedBodies, authenticate=authenticate)
    app.add_middleware(BodyTime, seconds=_JSON_SECONDS, unhurried=frozenset({"/uploads"}))
    app.add_middleware(BodyLimit, limit=_JSON_BYTES, limits={"/uploads": upload_bytes})
    app.add_middleware(HeadAsGet)
    cors = partial(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"],
        expose_headers=["ETag", "Location", "Retry-After", "X-Request-Id"],
        max_age=600,
    )
    if settings.cors_origins:
        app.add_middleware(cors)
    app.add_middleware(RequestContext)
    app.add_middleware(TrailingSlash)
    app.polls = Polls(
        app.framework,
        lambda: app.state.services,
        cors=cors if settings.cors_origins else None,
        origins=settings.cors_origins,
    )
    result = {Result.__name__: result_schema(registry.asset_kinds)}
    _complete_document(app, {**creation_schemas(registry.task_types), **result})
    return app


async def _open_services(registry: Registry, settings: Settings) -> ApiContainer:
    return await ApiContainer.open(settings, celery_bells(settings), registry)


def _lifespan(
    settings: Settings, registry: Registry, open_services: Callable[[Settings], Awaitable[ApiContainer]]
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        services = await open_services(settings)
        app.state.services = services
        app.state.catalogue = Catalogue(registry.task_types, services.planner)
        try:
            with _at_stop_signal(services.events.stop):
                yield
        finally:
            await services.aclose()
            await asyncio.to_thread(tracing.close)

    return lifespan


@contextmanager
def _at_stop_signal(begin: Callable[[], None]) -> Generator[None]:
    """Call ``begin`` as soon as the server is told to stop. A server first waits for open requests, and long polls and
    event streams would make it wait."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stopping(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    # without a server of its own handlers there is nobody to wait for anything
    ours = [
        number for number, handler in previous.items() if callable(handler) and handler != signal.default_int_handler
    ]
    for number in ours:
        signal.signal(number, stopping)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is stopping:
                signal.signal(number, previous[number])


def _complete_document(app: FastAPI, schemas: Mapping[str, Any]) -> None:
    """Put in these schemas and the problem's, which the routes refer to, and take out the framework's own of errors."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components: dict[str, Any] = schema["components"]["schemas"]
            for model in (Fault, Problem):
                components[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components[model.__name__].pop("$defs", None)
            components.update(schemas)
            components.pop("HTTPValidationError", None)
            components.pop("ValidationError", None)
            for path in schema["paths"].values():
                for operation in path.values():
                    answer = operation["responses"].get("422", {})
                    if "application/json" in answer.get("content", {}):
                        del operation["responses"]["422"]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi
