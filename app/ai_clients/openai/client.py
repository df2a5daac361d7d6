"""OpenAI Images: the reply of the paid POST is the pictures. Source: OpenAI's SDK 3.x and API reference."""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx
import structlog

from app.ai_clients.base import BeforeFirstByte, Estimate, FileInput, ImageRequest, Reply, Request, Result
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.http.bodies import BodyEmpty, BodyTooLarge, save_body
from app.ai_clients.http.client import paid_client
from app.ai_clients.http.failures import identifier
from app.ai_clients.openai.limits import CAPABILITIES, PROMPT_CHARACTERS
from app.ai_clients.openai.prices import PRICE_VERSION, estimate_micros, settled_micros
from app.ai_clients.openai.reply import NotAReply, read_reply
from app.ai_clients.openai.settings import OpenAISettings
from app.config import Settings
from app.errors import ErrorCode

if TYPE_CHECKING:
    from openai import AsyncAPIResponse, AsyncOpenAI
    from openai.types import ImagesResponse

log = structlog.get_logger(__name__)

_MAX_IMAGES = 10
_MAX_INPUTS = 16
_MAX_INPUT_BYTES = 50 * 1024 * 1024
_MAX_MASK_BYTES = 4 * 1024 * 1024
_MAX_REST_BYTES = 1024 * 1024  # of a reply, besides its pictures
_ALPHA_FORMATS = (None, "png", "webp")


class OpenAIImages:
    """A SynchronousProvider of pictures. Each call has an HTTP client of its own.

    The vendor's SDK takes longer to load than all else, so that only a process that calls it does.
    """

    name = "openai"
    capabilities = CAPABILITIES

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        own = OpenAISettings.of(settings)
        self.timeout_seconds = own.timeout_seconds
        self.paid_retry = own.paid_retry
        self._key = own.api_key.get_secret_value()
        self._base_url = own.base_url
        self._model = own.image_model
        self._max_image_bytes = settings.max_image_bytes
        self._max_pixels = settings.max_input_pixels
        self._context = context

    def pool(self, request: Request) -> str:  # noqa: ARG002 - one limit for all of the account's image calls
        return "openai"

    def estimate(self, request: Request, *, inputs: int | None = None) -> Estimate:
        request = _pictures(request)
        micros = estimate_micros(
            request.model or self._model,
            prompt=request.prompt,
            n=request.n,
            size=request.size,
            quality=request.quality,
            input_images=(len(request.inputs) if inputs is None else inputs) + (request.mask is not None),
        )
        return Estimate(micros, PRICE_VERSION)

    async def send(self, request: Request, *, reply: Path, before_first_byte: BeforeFirstByte) -> Reply:
        """Send the one paid POST; its reply's body lies at ``reply``, synced, when this returns.

        Raises Refused, OutcomeUnknown. A body that does not arrive whole leaves no file.
        """
        request = _pictures(request)
        _check(request)
        await asyncio.to_thread(importlib.import_module, "openai")
        from openai import OpenAIError

        failure: ProviderError
        async with AsyncExitStack() as stack:
            inputs = await _open_inputs(request, stack)
            http = paid_client(self._context, timeout_seconds=self.timeout_seconds, before_first_byte=before_first_byte)
            call = self._call(self._sdk(await stack.enter_async_context(http)), request, inputs)
            try:
                async with asyncio.timeout(self.timeout_seconds), call as response:
                    return await self._keep(response, request, reply)
            except (OpenAIError, httpx.HTTPError, httpx.InvalidURL) as error:
                from app.ai_clients.openai.errors import openai_failure

                configured = request.model in (None, self._model)
                failure = openai_failure(error, api_key=self._key, model_is_configured=configured)
            except TimeoutError:
                failure = _unknown("The provider did not answer in time.")
            except BodyTooLarge:
                failure = _unknown("The provider's reply is larger than any reply may be.")
            except BodyEmpty:
                failure = _unknown("The provider's reply is empty.")
            except OSError as error:
                log.error("reply_not_written", error=type(error).__name__, errno=error.errno)
                failure = _unknown("The provider's reply could not be kept.")
        log.info("openai_exchange", status=failure.http_status, openai_request_id=failure.provider_request_id)
        # raised out here, so that the SDK's exception (with request headers and an echoed prompt) is not its context
        raise failure

    def _sdk(self, http: httpx.AsyncClient) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        logging.getLogger("openai").setLevel(logging.WARNING)  # it logs URLs and bodies
        taken: Any = http  # the SDK has a client library of its own, and takes httpx's clients as well
        timeout: Any = http.timeout
        client = AsyncOpenAI(
            api_key=self._key, base_url=self._base_url, max_retries=0, timeout=timeout, http_client=taken
        )
        # the SDK would take these from its own environment variables
        client.organization = None
        client.project = None
        return client

    def _call(
        self, client: AsyncOpenAI, request: ImageRequest, inputs: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[AsyncAPIResponse[ImagesResponse]]:
        images = client.images.with_streaming_response
        return (images.edit if inputs else images.generate)(**self._fields(request), **inputs)

    async def _keep(self, response: AsyncAPIResponse[ImagesResponse], request: ImageRequest, reply: Path) -> Reply:
        limit = request.n * (self._max_image_bytes * 4 // 3 + 4) + _MAX_REST_BYTES
        await save_body(response.iter_bytes(), reply, max_bytes=limit, head_bytes=0, durable=True)
        request_id = identifier(response.headers.get("x-request-id"), secret=self._key)
        log.info("openai_exchange", status=response.status_code, openai_request_id=request_id)
        return Reply(reply, request_id)

    def _fields(self, request: ImageRequest) -> dict[str, Any]:
        """Only what was set: the API refuses parameters that a model does not know, even at their default."""
        optional = {
            "size": request.size,
            "quality": request.quality,
            "background": request.background,
            "output_format": request.output_format,
            "safety_identifier": request.safety_identifier,
        }
        fields: dict[str, Any] = {"model": request.model or self._model, "prompt": request.prompt, "n": request.n}
        return fields | {name: value for name, value in optional.items() if value is not None}

    async def decode(self, reply: Path, request: Request, *, directory: Path) -> Result:
        """The pictures of a stored reply, and what it cost by its ``usage``. Raises OutcomeUnknown."""
        request = _pictures(request)
        try:
            read = await asyncio.to_thread(
                read_reply,
                reply,
                directory=directory,
                max_images=request.n,
                max_image_bytes=self._max_image_bytes,
                max_pixels=self._max_pixels,
            )
        except NotAReply as error:
            raise _unknown(f"The provider's reply could not be read: {error}.") from None
        cost = settled_micros(request.model or self._model, read.usage)
        if cost is None:
            return Result(read.images, self.estimate(request).micros, PRICE_VERSION, read.usage, cost_is_estimate=True)
        return Result(read.images, cost, PRICE_VERSION, read.usage)

    async def aclose(self) -> None:
        return None


def _pictures(request: Request) -> ImageRequest:
    """Raises Refused for what this provider cannot make: nobody planned that."""
    if isinstance(request, ImageRequest):
        return request
    raise _refused("This provider makes pictures only.")


def _unknown(detail: str) -> OutcomeUnknown:
    return OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, detail)


def _check(request: ImageRequest) -> None:
    """What the API would refuse is refused here, before money is in the air. Raises Refused."""
    if not 1 <= request.n <= _MAX_IMAGES:
        raise _refused(f"Between 1 and {_MAX_IMAGES} pictures can be asked for at once.")
    if not 1 <= len(request.prompt) <= PROMPT_CHARACTERS:
        raise _refused(f"The prompt must have between 1 and {PROMPT_CHARACTERS} characters.")
    if request.background == "transparent" and request.output_format not in _ALPHA_FORMATS:
        raise _refused("A transparent background needs PNG or WebP.")
    if len(request.inputs) > _MAX_INPUTS:
        raise _refused(f"At most {_MAX_INPUTS} pictures can be sent.")
    if request.mask is not None and not request.inputs:
        raise _refused("A mask needs a picture.")


def _refused(detail: str) -> Refused:
    return Refused(ErrorCode.PROVIDER_REQUEST_REFUSED, detail)


async def _open_inputs(request: ImageRequest, stack: AsyncExitStack) -> dict[str, Any]:
    """The multipart files of an edit, read from disk while they are sent. Raises Refused."""
    if not request.inputs:
        return {}
    files = [await _open(file, stack, limit=_MAX_INPUT_BYTES) for file in request.inputs]
    # the SDK names the part ``image`` for one file and ``image[]`` for a list
    inputs: dict[str, Any] = {"image": files[0] if len(files) == 1 else files}
    if request.mask is not None:
        inputs["mask"] = await _open(request.mask, stack, limit=_MAX_MASK_BYTES)
    return inputs


async def _open(file: FileInput, stack: AsyncExitStack, *, limit: int) -> tuple[str, Any, str]:
    def opened() -> BinaryIO:
        if file.path.stat().st_size >= limit:
            raise Refused(ErrorCode.PROVIDER_INPUT_REFUSED, "An input picture is larger than the provider takes.")
        return file.path.open("rb")

    try:
        return file.filename, stack.enter_context(await asyncio.to_thread(opened)), file.content_type
    except OSError:
        raise Refused(ErrorCode.INTERNAL_ERROR, "An input picture could not be read.", advice=Advice.RETRY) from None
