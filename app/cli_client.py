"""The command line as a client of the gateway: uploads inputs, sends requests, shows progress, saves results.

It uses nothing but the public HTTP contract, as an app would.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_FINAL = frozenset({"complete", "failed", "canceled"})
_LONG_POLL_SECONDS = 20


class GatewayError(Exception):
    """The gateway refused or failed; the message is fit to print."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished request: its status document and the files that were saved."""

    status: Mapping[str, Any]
    files: tuple[Path, ...]


class GatewayClient:
    """One signed-in caller. ``headers`` carry the authorisation."""

    def __init__(self, url: str, headers: Mapping[str, str], console: Console) -> None:
        self._http = httpx.Client(base_url=url, headers=dict(headers), timeout=httpx.Timeout(60, connect=5))
        self._own_host = urlsplit(url).netloc
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def upload(self, path: Path, *, task_id: str, kind: str) -> str:
        """Send a local file as an input; its lasting URL."""
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        with path.open("rb") as source:
            answer = self._send(
                "POST",
                "/uploads",
                files={"file": (path.name, source, content_type)},
                data={"task_id": task_id, "input_asset_type": kind},
            )
        return str(answer["asset_url"])

    def generate(
        self, operation: str, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> dict[str, Any]:
        """Send one ``/generate/*`` request; the answer names the job."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self._send("POST", f"/generate/{operation}", json=dict(body), headers=headers)

    def wait(self, job_id: str, label: str) -> dict[str, Any]:
        """Follow a job with a progress bar until it is over; its last status document."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console) as progress:
            bar = progress.add_task(label, total=100, note="pending")
            etag = ""
            while True:
                response = self._request(
                    "GET",
                    f"/tasks/{job_id}/status",
                    params={"wait": _LONG_POLL_SECONDS},
                    headers={"If-None-Match": etag} if etag else {},
                )
                if response.status_code == 304:
                    continue
                status: dict[str, Any] = response.json()
                etag = response.headers.get("etag", "")
                waiting = status.get("waiting_for")
                note = status["status"] + (f", waiting for {waiting}" if waiting else "")
                progress.update(bar, completed=status["progress"], note=note)
                if status["status"] in _FINAL:
                    return status

    def save(self, urls: Sequence[str], directory: Path) -> tuple[Path, ...]:
        """Download results into a directory, under the names they have in the bucket."""
        directory.mkdir(parents=True, exist_ok=True)
        return tuple(self._save(url, directory, index) for index, url in enumerate(urls))

    def _save(self, url: str, directory: Path, index: int) -> Path:
        # our own links answer with a redirect to a signed one; other hosts never see the token
        headers = dict(self._http.headers) if urlsplit(url).netloc == self._own_host else {}
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
            if response.is_error:
                raise GatewayError(f"{url}: HTTP {response.status_code}")
            name = Path(response.url.path).name or f"result-{index}"
            target = directory / name
            with target.open("wb") as sink:
                for block in response.iter_bytes():
                    sink.write(block)
        return target

    def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - httpx's options
        answer: dict[str, Any] = self._request(method, path, **options).json()
        return answer

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise GatewayError(
                f"{self._http.base_url} does not answer ({type(error).__name__}). Is it running? Try `make run`."
            ) from None
        if response.is_error:
            raise GatewayError(_problem(response))
        return response


def _problem(response: httpx.Response) -> str:
    try:
        problem: dict[str, Any] = response.json()
    except ValueError:
        return f"HTTP {response.status_code}"
    text = f"{problem.get('code', response.status_code)}: {problem.get('detail') or problem.get('title')}"
    for fault in problem.get("errors") or ():
        text += f"\n  {fault.get('field')}: {fault.get('message')}"
    return text
