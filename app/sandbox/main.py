"""The sandbox: stand-ins for Supabase, OpenAI and Tripo in one process, told apart by path."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from starlette.applications import Starlette
from starlette.routing import Mount

from app.config import SandboxSettings
from app.sandbox.providers.mount import mount_providers
from app.sandbox.supabase.auth_routes import AuthRoutes
from app.sandbox.supabase.bucket_routes import BucketRoutes
from app.sandbox.supabase.faults import StorageFaults
from app.sandbox.supabase.keys import SigningKeys
from app.sandbox.supabase.objects import Objects
from app.sandbox.supabase.project import Project
from app.sandbox.supabase.storage_routes import StorageRoutes

_CORS_HEADERS = [
    *("authorization", "apikey", "content-type", "x-client-info", "x-upsert", "x-metadata", "cache-control"),
    *("prefer", "accept-profile", "content-profile", "range", "x-retry-count", "x-supabase-api-version"),
]
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
    """The application; its database pool opens with the lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        settings.home.mkdir(parents=True, exist_ok=True)
        async with asyncpg.create_pool(
            settings.database_url.get_secret_value(),
            min_size=1,
            max_size=8,
            server_settings={"application_name": "makeit3d sandbox"},
        ) as pool:
            project = Project(pool, SigningKeys(settings.home), settings)
            objects = Objects(project)
            storage = Starlette(
                routes=[*BucketRoutes(project, objects).routes(), *StorageRoutes(project, objects).routes()]
            )
            auth = Starlette(routes=AuthRoutes(project).routes())
            app.router.routes.append(Mount("/supabase/storage/v1", StorageFaults(storage, app.state.storage_faults)))
            app.router.routes.append(Mount("/supabase/auth/v1", auth))
            async with providers.running():
                yield

    app = FastAPI(title="MakeIt3D sandbox", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=_CORS_HEADERS,
        expose_headers=_EXPOSED,
    )

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:  # pyright: ignore[reportUnusedFunction]
        return _PAGE.format(url=settings.public_url)

    @app.get("/health")
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok", "what": "sandbox"}

    StorageFaults.mount_admin(app, settings)
    providers = mount_providers(app, settings)
    return app
