"""OpenAI Images: the paid POST answers with the pictures. Source: OpenAI's SDK 3.x and API reference."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx
import structlog

from app.ai_clients.base import Estimate, FileInput, ImageReceipt, ImageRequest, ImageResult
from app.ai_clients.errors import Advice, OutcomeUnknown, ProviderError, Refused
from app.ai_clients.http import BodyEmpty, BodyTooLarge, identifier, paid_client, save_body
from app.ai_clients.openai_reply import NotAReply, read_reply
from app.config import Settings
from app.domain.operations import Operation
from app.domain.prices import PRICE_VERSION, openai_estimate_micros, openai_settled_micros
from app.domain.prompts import OPENAI_PROMPT_LIMIT
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
    """An ImageProvider. Owns its HTTP client; ``aclose`` closes it.

    The vendor's SDK takes longer to load than all else, so that only a process that calls it does.
    """

    name = "openai"
    operations = frozenset({Operation.TEXT_TO_IMAGE, Operation.IMAGE_TO_IMAGE, Operation.SKETCH_TO_MODEL})

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        self._key = settings.openai_api_key.get_secret_value()
        self._model = settings.openai_image_model
        self._timeout_seconds = settings.openai_timeout_seconds
        self._max_image_bytes = settings.max_image_bytes
        self._max_pixels = settings.max_input_pixels
        self._http = paid_client(context, timeout_seconds=self._timeout_seconds)
        self._base_url = settings.openai_base_url
        self._client: AsyncOpenAI | None = None

    @property
    def timeout_seconds(self) -> float:
        return self._timeout_seconds

    def pool(self, request: ImageRequest) -> str:  # noqa: ARG002 - one limit for all of the account's image calls
        return "openai"

    def estimate(self, request: ImageRequest, *, inputs: int | None = None) -> Estimate:
        micros = openai_estimate_micros(
            request.model or self._model,
            prompt=request.prompt,
            n=request.n,
            size=request.size,
            quality=request.quality,
            input_images=(len(request.inputs) if inputs is None else inputs) + (request.mask is not None),
        )
        return Estimate(micros, PRICE_VERSION)

    async def generate(self, request: ImageRequest, *, reply: Path) -> ImageReceipt:
        """Send the one paid POST; its reply's body lies at ``reply``, synced, when this returns.

        Raises Refused, OutcomeUnknown. A body that does not arrive whole leaves no file.
        """
        _check(request)
        client = await self._sdk()
        from openai import OpenAIError

        failure: ProviderError
        async with AsyncExitStack() as stack:
            call = self._call(client, request, await _open_inputs(request, stack))
            try:
                async with asyncio.timeout(self._timeout_seconds), call as response:
                    return await self._keep(response, request, reply)
            except (OpenAIError, httpx.HTTPError, httpx.InvalidURL) as error:
                from app.ai_clients.openai_errors import openai_failure

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

    async def _sdk(self) -> AsyncOpenAI:
        if self._client is None:
            openai = await asyncio.to_thread(importlib.import_module, "openai")
            client: AsyncOpenAI = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._base_url,
                max_retries=0,
                timeout=self._http.timeout,  # the SDK converts httpx's
                http_client=self._http,  # and takes httpx's clients as well
            )
            # the SDK would take these from its own environment variables
            client.organization = None
            client.project = None
            self._client = client
        return self._client

    def _call(
        self, client: AsyncOpenAI, request: ImageRequest, inputs: Mapping[str, Any]
    ) -> AbstractAsyncContextManager[AsyncAPIResponse[ImagesResponse]]:
        images = client.images.with_streaming_response
        return (images.edit if inputs else images.generate)(**self._fields(request), **inputs)

    async def _keep(
        self, response: AsyncAPIResponse[ImagesResponse], request: ImageRequest, reply: Path
    ) -> ImageReceipt:
        limit = request.n * (self._max_image_bytes * 4 // 3 + 4) + _MAX_REST_BYTES
        await save_body(response.iter_bytes(), reply, max_bytes=limit, head_bytes=0, durable=True)
        request_id = identifier(response.headers.get("x-request-id"), secret=self._key)
        log.info("openai_exchange", status=response.status_code, openai_request_id=request_id)
        return ImageReceipt(reply, request_id)

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

    async def decode(self, reply: Path, request: ImageRequest, *, directory: Path) -> ImageResult:
        """The pictures of a stored reply, and what it cost by its ``usage``. Raises OutcomeUnknown."""
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
        cost = openai_settled_micros(request.model or self._model, read.usage)
        if cost is None:
            return ImageResult(
                read.images, self.estimate(request).micros, PRICE_VERSION, read.usage, cost_is_estimate=True
            )
        return ImageResult(read.images, cost, PRICE_VERSION, read.usage)

    async def aclose(self) -> None:
        await self._http.aclose()


def _unknown(detail: str) -> OutcomeUnknown:
    return OutcomeUnknown(ErrorCode.PROVIDER_OUTCOME_UNKNOWN, detail)


def _check(request: ImageRequest) -> None:
    """What the API would refuse is refused here, before money is in the air. Raises Refused."""
    if not 1 <= request.n <= _MAX_IMAGES:
        raise _refused(f"Between 1 and {_MAX_IMAGES} pictures can be asked for at once.")
    if not 1 <= len(request.prompt) <= OPENAI_PROMPT_LIMIT:
        raise _refused(f"The prompt must have between 1 and {OPENAI_PROMPT_LIMIT} characters.")
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
