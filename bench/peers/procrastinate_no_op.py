"""procrastinate: ``python procrastinate_no_op.py DSN JOBS SLOTS`` defers the jobs, drains them, prints the seconds."""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from procrastinate import App, PsycopgConnector


async def drain(dsn: str, jobs: int, slots: int) -> float:
    app = App(connector=PsycopgConnector(conninfo=dsn, min_size=10, max_size=10))
    began = ended = 0.0

    async def body() -> None:
        nonlocal began, ended
        ended = time.perf_counter()
        began = began or ended

    no_op: Any = app.task(name="no_op")(body)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await no_op.batch_defer_async(*({} for _ in range(jobs)))
        await app.run_worker_async(concurrency=slots, wait=False, install_signal_handlers=False)
    return ended - began


def main() -> None:
    seconds = asyncio.run(drain(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
