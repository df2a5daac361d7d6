"""The threads that make pictures and meshes, so that the event loop stays free to answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Builders:
    """As many threads as cores, at most four. ``open`` before use."""

    width = max(1, min(4, os.cpu_count() or 1))

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        self._threads = ThreadPoolExecutor(self.width, thread_name_prefix="sandbox-builder")

    def close(self) -> None:
        """What has not begun is dropped; what has, ends by itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._threads is None:
            raise RuntimeError("the sandbox's builders are not open")
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))
