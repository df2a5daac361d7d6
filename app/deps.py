"""What routers get from outside a request: the process's services, and who calls."""

from __future__ import annotations

from typing import Annotated, cast

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope

from app.container import ApiContainer
from app.domain.principal import Principal
from app.task_types.catalogue import Catalogue

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="accessToken",
    bearerFormat="JWT",
    description="A user's Supabase access token, or the service key together with X-User-Id.",
)
_apikey = APIKeyHeader(
    name="apikey", auto_error=False, scheme_name="serviceKey", description="The service key; with X-User-Id."
)


def services_of(scope: Scope) -> ApiContainer:
    """The composition that the application's lifespan opened."""
    return cast("ApiContainer", scope["app"].state.services)


async def _services(request: Request) -> ApiContainer:
    return services_of(request.scope)  # a dependency that is no coroutine would run in a thread


Services = Annotated[ApiContainer, Depends(_services)]


async def _catalogue(request: Request) -> Catalogue:
    return cast("Catalogue", request.app.state.catalogue)


TaskTypeCatalogue = Annotated[Catalogue, Depends(_catalogue)]


async def authenticate(scope: Scope) -> Principal:
    """The verified caller, from the headers alone; verified once for each request.

    Raises AppError: UNAUTHENTICATED, TOKEN_EXPIRED, VALIDATION_ERROR, SERVICE_UNAVAILABLE.
    """
    request = Request(scope)
    known: Principal | None = getattr(request.state, "principal", None)
    if known is not None:
        return known
    headers = request.headers
    principal = await services_of(scope).verifier.verify(
        authorization=headers.get("authorization"),
        apikey=headers.get("apikey"),
        user_id_header=headers.get("x-user-id"),
    )
    request.state.principal = principal
    structlog.contextvars.bind_contextvars(user_id=str(principal.user_id))
    return principal


async def caller(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    apikey: Annotated[str | None, Security(_apikey)],
    x_user_id: Annotated[str | None, Header(description="For whom the service acts; a UUID.")] = None,
) -> Principal:
    """As ``authenticate``. The parameters are here for the OpenAPI document."""
    del bearer, apikey, x_user_id
    return await authenticate(request.scope)


Caller = Annotated[Principal, Depends(caller)]
