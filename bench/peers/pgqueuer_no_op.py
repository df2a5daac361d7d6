"""pgqueuer: ``python pgqueuer_no_op.py DSN JOBS BATCH`` enqueues the jobs, drains them, prints the seconds.

Its tables are installed with its own default, which is durable.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode


async def drain(dsn: str, jobs: int, batch: int) -> float:
    began = ended = 0.0
    async with asyncpg.create_pool(dsn, min_size=10, max_size=10) as pool:
        app = PgQueuer.from_asyncpg_pool(pool)
        queries = Queries.from_asyncpg_pool(pool)
        await queries.install()
        await queries.enqueue(["no_op"] * jobs, [None] * jobs, [0] * jobs)

        async def body(job: Any) -> None:  # noqa: ANN401 - a type of its environment
            nonlocal began, ended
            del job
            ended = time.perf_counter()
            began = began or ended

        app.entrypoint("no_op")(body)
        await app.qm.run(batch_size=batch, mode=QueueExecutionMode.drain)
    return ended - began


def main() -> None:
    seconds = asyncio.run(drain(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
