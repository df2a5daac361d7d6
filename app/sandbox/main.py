"""The sandbox: stand-ins for Supabase, OpenAI and Tripo in one process, told apart by path."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from starlette.applications import Starlette

from app.sandbox.providers.mount import mount_providers
from app.sandbox.supabase.accounts import Accounts
from app.sandbox.supabase.auth_routes import AuthRoutes
from app.sandbox.supabase.bucket_routes import BucketRoutes
from app.sandbox.supabase.calls import StorageCalls, mount_storage_calls
from app.sandbox.supabase.faults import StorageFaults, mount_storage_faults
from app.sandbox.supabase.links import LinkRoutes
from app.sandbox.supabase.listing import ListRoutes
from app.sandbox.supabase.objects import Objects
from app.sandbox.supabase.project import Project
from app.sandbox.supabase.storage_routes import StorageRoutes
from app.sandbox.supabase.unread import UnreadBodies
from app.sandbox.supabase.wire import no_route
from app.sandbox_settings import SandboxSettings

_EXPOSED = [
    *("content-range", "content-length", "etag", "location", "preference-applied", "x-supabase-api-version"),
]

_PAGE = """<!doctype html><meta charset="utf-8"><title>MakeIt3D sandbox</title>
<style>
body{{font:16px/1.6 system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem}}
code{{background:#eee;padding:0 .3em}}
</style>
<h1>This is the sandbox</h1>
<p>Nothing here is the real service. These are local stand-ins that speak the same wire formats:</p>
<ul>
<li>Supabase Storage <code>{url}/supabase/storage/v1</code> and Auth <code>{url}/supabase/auth/v1</code></li>
<li>OpenAI Images <code>{url}/openai/v1</code></li>
<li>Tripo v3 <code>{url}/tripo/v3</code></li>
<li>Ledger, knobs and faults <code>{url}/admin</code></li>
</ul>"""


def create_sandbox(settings: SandboxSettings) -> FastAPI:
    """The application. Its keys are read now; its database pool is open while it serves."""
    settings.home.mkdir(parents=True, exist_ok=True)
    project = Project(settings)
    objects = Objects(project)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        objects.open_store()
        async with project.serving(), providers.running():
            yield

    app = FastAPI(title="MakeIt3D sandbox", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
    )

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:  # pyright: ignore[reportUnusedFunction]
        return _PAGE.format(url=settings.public_url)

    @app.get("/health")
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok", "what": "sandbox"}

    script = mount_storage_faults(app, settings)
    parts = (BucketRoutes(project, objects), ListRoutes(project, objects), LinkRoutes(project, objects))
    storage = Starlette(
        routes=[route for part in (*parts, StorageRoutes(project, objects)) for route in part.routes()],
        exception_handlers={404: no_route, 405: no_route},
    )
    calls = StorageCalls(StorageFaults(storage, script))
    mount_storage_calls(app, calls, settings)
    app.mount("/supabase/storage/v1", UnreadBodies(calls))
    app.mount("/supabase/auth/v1", Starlette(routes=AuthRoutes(project, Accounts(project)).routes()))
    providers = mount_providers(app, settings)
    return app
