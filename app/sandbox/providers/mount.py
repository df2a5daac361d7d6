"""Puts the provider stand-ins into the sandbox's application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from app.config import SandboxSettings
from app.sandbox.providers.accounts import account_of
from app.sandbox.providers.faults import Knobs, Script, mount_admin
from app.sandbox.providers.openai_routes import OpenAIRoutes
from app.sandbox.providers.store import Store
from app.sandbox.providers.tripo_routes import TripoRoutes
from app.sandbox.providers.tripo_work import TripoWork


@dataclass(frozen=True, slots=True)
class ProviderStandIns:
    """The mounted stand-ins; they work while ``running`` lasts."""

    store: Store
    work: TripoWork
    tripo: TripoRoutes

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        self.tripo.attach(asyncio.get_running_loop())
        self.work.resume()
        try:
            yield
        finally:
            await self.work.close()
            self.store.close()


def mount_providers(app: FastAPI, settings: SandboxSettings) -> ProviderStandIns:
    """OpenAI at ``/openai/v1``, Tripo at ``/tripo/v3`` with downloads at ``/tripo/dl``, and ``/admin``."""
    home = settings.home / "providers"
    store = Store(home)
    script = Script(Knobs.model_validate({"work_seconds": settings.work_seconds}))
    results = home / "results"
    work = TripoWork(store, results)
    tripo = TripoRoutes(settings, store, script, work, results)
    openai = OpenAIRoutes(settings, store, script)
    app.router.routes.append(Mount("/openai/v1", Starlette(routes=list(openai.routes()))))
    app.router.routes.append(Route("/tripo/dl/{name}", tripo.download, methods=["GET", "HEAD"]))
    app.router.routes.append(Mount("/tripo/v3", Starlette(routes=list(tripo.routes()))))
    mount_admin(app, settings, script, store, account_of)
    return ProviderStandIns(store, work, tripo)
