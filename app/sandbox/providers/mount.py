"""Puts the provider stand-ins into the sandbox's application."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Match, Mount, Route

from app.errors import ConfigurationError
from app.sandbox.providers.accounts import KeyRing
from app.sandbox.providers.admin import AdminRoutes
from app.sandbox.providers.builders import Builders
from app.sandbox.providers.concurrency import Concurrency
from app.sandbox.providers.faults import Script
from app.sandbox.providers.knobs import KnobBoard, Knobs
from app.sandbox.providers.ledger import Ledger
from app.sandbox.providers.links import Links
from app.sandbox.providers.listeners import Listeners
from app.sandbox.providers.marks import Marks
from app.sandbox.providers.openai_calls import ImageCalls
from app.sandbox.providers.openai_routes import OpenAIRoutes
from app.sandbox.providers.store import Store
from app.sandbox.providers.tripo_calls import Asked, Handler, TripoCalls
from app.sandbox.providers.tripo_creates import TripoCreates
from app.sandbox.providers.tripo_downloads import TripoDownloads
from app.sandbox.providers.tripo_files import Files
from app.sandbox.providers.tripo_inputs import Inputs
from app.sandbox.providers.tripo_reads import TripoReads
from app.sandbox.providers.tripo_refusals import TripoRefusal
from app.sandbox.providers.tripo_results import Maker
from app.sandbox.providers.tripo_tasks import Tasks
from app.sandbox.providers.tripo_uploads import TripoUploads
from app.sandbox.providers.tripo_work import TripoWork
from app.sandbox.providers.webhooks import Webhooks
from app.sandbox_settings import SandboxSettings

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True)
class ProviderStandIns:
    """The mounted stand-ins; they work while ``running`` lasts."""

    results: Path
    store: Store
    links: Links
    files: Files
    builders: Builders
    work: TripoWork
    webhooks: Webhooks
    listeners: Listeners

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        self.results.mkdir(parents=True, exist_ok=True)
        self.store.open()
        self.links.open()
        self.files.open()
        self.builders.open()
        self.webhooks.open()
        self.work.resume()
        try:
            yield
        finally:
            await self.listeners.close()
            await self.work.close()
            await self.webhooks.close()
            self.builders.close()
            self.store.close()


def mount_providers(app: FastAPI, settings: SandboxSettings) -> ProviderStandIns:
    """OpenAI at ``/openai/v1``, Tripo at ``/tripo/v3`` with downloads at ``/tripo/dl``, and ``/admin``.

    Keep ``running()`` entered while the application serves. Raises ConfigurationError for unknown start knobs.
    """
    directory = settings.home / "providers"
    results = directory / "results"
    store = Store(settings.home / "providers.sqlite3")
    ledger, concurrency = Ledger(store), Concurrency()
    tasks = Tasks(store, concurrency)
    board, script = KnobBoard(_start_knobs(settings)), Script(settings.seed)
    links = Links(directory / "links.key", f"{settings.public_url}/tripo")
    files = Files(store, directory / "files", settings.public_url)
    builders, listeners = Builders(), Listeners()
    webhooks = Webhooks(store, script, board, links)
    inputs = Inputs(tasks, files, results)
    work = TripoWork(tasks, inputs, Maker(results), builders, board, webhooks)

    images = ImageCalls(board, script, ledger, concurrency, builders, settings.seed)
    openai = OpenAIRoutes(KeyRing(settings.openai_api_key), board, images)
    app.router.routes.append(Mount("/openai/v1", Starlette(routes=openai.routes())))

    calls = TripoCalls(KeyRing(settings.tripo_api_key), board, script)
    uploads = TripoUploads(calls, files, links)
    downloads = TripoDownloads(links, script, board, ledger, results)
    tripo = [
        *TripoCreates(calls, tasks, inputs, ledger, work, webhooks, settings.seed).routes(),
        *TripoReads(calls, tasks, links).routes(),
        *uploads.routes(),
    ]
    tripo.append(Route("/{path:path}", calls.answering(_nowhere(tuple(tripo))), methods=_METHODS))
    app.router.routes.append(Route("/tripo/dl/{name}", downloads.download, methods=["GET", "HEAD"]))
    app.router.routes.append(Route("/tripo/put/{token}", uploads.put, methods=["PUT"]))
    app.router.routes.append(Mount("/tripo/v3", Starlette(routes=tripo)))

    AdminRoutes(
        admin_key=settings.admin_key,
        tripo_key=settings.tripo_api_key,
        board=board,
        script=script,
        ledger=ledger,
        concurrency=concurrency,
        tasks=tasks,
        work=work,
        webhooks=webhooks,
        listeners=listeners,
    ).mount(app)
    app.add_middleware(Marks, skew=lambda: board.of(None).clock_skew_seconds)
    return ProviderStandIns(results, store, links, files, builders, work, webhooks, listeners)


def _start_knobs(settings: SandboxSettings) -> Knobs:
    try:
        start = Knobs.model_validate_json(settings.knobs)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ConfigurationError(f"SANDBOX_KNOBS: {faults}") from None
    if "work_seconds" in start.model_fields_set:
        return start
    return start.model_copy(update={"work_seconds": settings.work_seconds})


def _nowhere(routes: Sequence[Route]) -> Handler:
    async def answer(asked: Asked) -> Response:
        request = asked.request
        if any(route.matches(request.scope)[0] is Match.PARTIAL for route in routes):
            raise TripoRefusal(405, 1003, f"The method {request.method} is not allowed here")
        raise TripoRefusal(404, 4001, f"No route {request.method} {request.url.path}")

    return answer
