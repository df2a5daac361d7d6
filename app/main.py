"""The HTTP application."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import problems, tracing
from app.config import Settings
from app.container import ApiContainer
from app.deps import authenticate
from app.middleware import AuthenticatedBodies, BodyLimit, BodyTime, HeadAsGet, RequestContext, TrailingSlash
from app.observability import configure_logging
from app.polls import Polls
from app.routers import assets, events, generation, operations, tasks, uploads
from app.routers.multipart import FORM_BYTES
from app.schemas.problems import Fault, Problem
from app.tasks.bells import celery_bells

_JSON_BYTES = 1024 * 1024
_JSON_SECONDS = 30.0
_DESCRIPTION = """A gateway between apps on Supabase and paid AI media services: concept images and 3D models,
paid once, never lost. Errors are RFC 9457 problem documents; `GET /problems` lists their codes."""


def create_app(
    settings: Settings | None = None,
    *,
    open_services: Callable[[Settings], Awaitable[ApiContainer]] | None = None,
) -> FastAPI:
    """The application of a process. Without settings it reads them and sets up logging, as servers want it.

    ``open_services`` makes what the routers use, once the loop runs; normally all of ApiContainer.
    Raises ConfigurationError.
    """
    if settings is None:
        settings = Settings.load()
        configure_logging(settings)
        tracing.configure(settings, "makeit3d-api")
    app = FastAPI(
        title="MakeIt3D (sandbox)" if settings.is_sandbox else "MakeIt3D",
        version=version("makeit3d-bff"),
        description=_DESCRIPTION,
        lifespan=_lifespan(settings, open_services or _open_services),
        redoc_url=None,
        redirect_slashes=False,
        # the framework's own would tell what users wrote: inputs that are refused, messages of exceptions
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    for module in (generation, tasks, events, uploads, assets, operations):
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
    app.add_middleware(Polls, cors=cors if settings.cors_origins else None, origins=settings.cors_origins)
    _document_problems(app)
    return app


async def _open_services(settings: Settings) -> ApiContainer:
    return await ApiContainer.open(settings, celery_bells(settings))


def _lifespan(
    settings: Settings, open_services: Callable[[Settings], Awaitable[ApiContainer]]
) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        services = await open_services(settings)
        app.state.services = services
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


def _document_problems(app: FastAPI) -> None:
    """Put the problem's schema where the routes refer to it, and take out the framework's own error schemas."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            components: dict[str, Any] = schema["components"]["schemas"]
            for model in (Fault, Problem):
                components[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}")
                components[model.__name__].pop("$defs", None)
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
