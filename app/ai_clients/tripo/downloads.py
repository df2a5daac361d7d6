"""Fetching Tripo's results: from its own hosts only, without our key, checked for what they are.

The links come from a reply and are not trusted further than that: https, hosts from an allow-list, redirects only
within it, connections to public addresses only. Where the configured API itself is a stand-in on this machine, its
plain links on this machine do too.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from app.ai_clients.base import DownloadedFile
from app.ai_clients.errors import Advice, Refused
from app.ai_clients.http.bodies import BodyEmpty, BodyTooLarge, SavedBody, save_body
from app.ai_clients.http.client import guarded_client
from app.ai_clients.http.failures import unreachable
from app.ai_clients.tripo.settings import TripoSettings
from app.config import LOOPBACK, Settings
from app.domain.addresses import is_public, parse_address
from app.domain.sniff import GLB, HEAD_BYTES, glb_declared_bytes, sniff, unwanted_format
from app.errors import ErrorCode

_READ_SECONDS = 60.0
_WHOLE_SECONDS = 1_800.0
_REDIRECTS = 3
_OK = 200
_GONE = frozenset({403, 404, 410})
_MAX_URL = 8_192
_HTTPS_PORTS = (None, 443)


class Hosts:
    """Which addresses a link may have."""

    def __init__(self, settings: Settings) -> None:
        own = TripoSettings.of(settings)
        base = httpx.URL(own.base_url)
        # a stand-in on this machine answers with links to itself
        self.are_local = base.scheme == "http" and base.host in LOOPBACK
        self._allowed = tuple(host.lower() for host in own.download_hosts)

    def check_download(self, link: str) -> httpx.URL:
        """The link, if it leads to the provider. Raises Refused(PROVIDER_RESULT_INVALID)."""
        url = self._parse(link)
        if url is None or not self._is_fair(url) or not self._is_listed(url.host):
            raise _invalid("The result's link leads outside the provider's hosts.")
        return url

    def check_upload(self, link: str) -> httpx.URL:
        """A signed upload link, whose host is the provider's choice but never an address inside a network.
        Raises Refused."""
        url = self._parse(link)
        if url is None or not self._is_fair(url) or (url.scheme == "https" and _is_internal(url.host)):
            raise Refused(
                ErrorCode.PROVIDER_UNAVAILABLE, "The provider's upload link can not be used.", advice=Advice.RETRY
            )
        return url

    @staticmethod
    def _parse(link: str) -> httpx.URL | None:
        if len(link) > _MAX_URL:
            return None
        try:
            return httpx.URL(link)
        except httpx.InvalidURL:
            return None

    def _is_fair(self, url: httpx.URL) -> bool:
        if url.userinfo or not url.host:
            return False
        if url.scheme == "https":
            return url.port in _HTTPS_PORTS
        return url.scheme == "http" and self.are_local and url.host in LOOPBACK

    def _is_listed(self, host: str) -> bool:
        host = host.lower()
        return any(host.endswith(entry) if entry.startswith(".") else host == entry for entry in self._allowed)


def _is_internal(host: str) -> bool:
    address = parse_address(host)
    if address is not None:
        return not is_public(address)
    return "." not in host or host.lower().rstrip(".").endswith((".localhost", ".local", ".internal"))


class Downloads:
    def __init__(self, context: ssl.SSLContext, hosts: Hosts) -> None:
        self._hosts = hosts
        self._http = guarded_client(context, timeout_seconds=_READ_SECONDS, loopback_too=hosts.are_local)

    async def fetch(self, link: str, target: Path, *, max_bytes: int) -> DownloadedFile:
        """Stream a result to ``target``. Raises Refused: RETRY for a dead link or a broken line."""
        url = self._hosts.check_download(link)
        failure: Refused
        try:
            async with asyncio.timeout(_WHOLE_SECONDS):
                saved = await self._follow(url, target, max_bytes)
            return await _checked(saved, target)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            failure = unreachable()
        except BodyTooLarge:
            failure = Refused(ErrorCode.PROVIDER_RESULT_TOO_LARGE, "The result is larger than results may be.")
        except BodyEmpty:
            failure = _invalid("The result is empty.", Advice.RETRY)
        raise failure

    async def _follow(self, url: httpx.URL, target: Path, max_bytes: int) -> SavedBody:
        for _ in range(_REDIRECTS + 1):
            async with self._http.stream("GET", url) as response:
                if not response.has_redirect_location:
                    return await self._save(response, target, max_bytes)
                url = self._hosts.check_download(str(url.join(response.headers["location"])))
        raise _invalid("The result's link leads nowhere.")

    @staticmethod
    async def _save(response: httpx.Response, target: Path, max_bytes: int) -> SavedBody:
        if response.status_code in _GONE:
            raise Refused(
                ErrorCode.PROVIDER_UNAVAILABLE,
                "The result's link is no longer valid.",
                http_status=response.status_code,
                advice=Advice.RETRY,
            )
        if response.status_code != _OK:
            raise unreachable(http_status=response.status_code)
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > max_bytes:
            raise BodyTooLarge
        body: AsyncIterator[bytes] = response.aiter_bytes()
        saved = await save_body(body, target, max_bytes=max_bytes, head_bytes=HEAD_BYTES, durable=False)
        if declared.isdecimal() and "content-encoding" not in response.headers and int(declared) != saved.size:
            await asyncio.to_thread(target.unlink)
            raise unreachable()
        return saved

    async def aclose(self) -> None:
        await self._http.aclose()


async def _checked(saved: SavedBody, target: Path) -> DownloadedFile:
    """The file, named by its bytes. Raises Refused and removes it when it is no picture and no whole GLB."""
    content_type = sniff(saved.head)
    if content_type is not None and (content_type != GLB or glb_declared_bytes(saved.head) == saved.size):
        return DownloadedFile(target, content_type, saved.size, saved.sha256)
    await asyncio.to_thread(target.unlink)
    if content_type is not None:
        raise _invalid("The model's header and its length disagree.", Advice.RETRY)
    wrong = unwanted_format(saved.head)
    if wrong is not None:
        raise _invalid(f"The provider delivered {wrong}, which was not asked for.")
    # an error page in the place of a result: what was paid may still come
    raise _invalid("The provider delivered something that is neither a picture nor a model.", Advice.RETRY)


def _invalid(detail: str, advice: Advice = Advice.FINAL) -> Refused:
    return Refused(ErrorCode.PROVIDER_RESULT_INVALID, detail, advice=advice)
