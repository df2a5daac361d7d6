"""What routers get from outside a request: the process's services, and who calls."""

from __future__ import annotations

from typing import Annotated, cast

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.container import ApiContainer
from app.domain.principal import Principal

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="accessToken",
    bearerFormat="JWT",
    description="A user's Supabase access token, or the service key together with X-User-Id.",
)
_apikey = APIKeyHeader(
    name="apikey", auto_error=False, scheme_name="serviceKey", description="The service key; with X-User-Id."
)


def services_of(request: Request) -> ApiContainer:
    """The composition that the application's lifespan opened."""
    return cast("ApiContainer", request.app.state.services)


Services = Annotated[ApiContainer, Depends(services_of)]


async def caller(
    request: Request,
    services: Services,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    apikey: Annotated[str | None, Security(_apikey)],
    x_user_id: Annotated[str | None, Header(description="For whom the service acts; a UUID.")] = None,
) -> Principal:
    """The verified caller. Raises AppError: UNAUTHENTICATED, TOKEN_EXPIRED, VALIDATION_ERROR, SERVICE_UNAVAILABLE."""
    del bearer  # here for the OpenAPI document; the verifier reads the header itself
    principal = await services.verifier.verify(
        authorization=request.headers.get("authorization"), apikey=apikey, user_id_header=x_user_id
    )
    structlog.contextvars.bind_contextvars(user_id=str(principal.user_id))
    return principal


Caller = Annotated[Principal, Depends(caller)]
