"""Celery with Redis alone: early acknowledgement, no result backend, nothing durable.

``python celery_no_op.py BROKER_URL JOBS`` publishes the jobs, then drains them and prints how long that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from celery import Celery


def main() -> None:
    broker, jobs = sys.argv[1], int(sys.argv[2])
    app = Celery("no_op", broker=broker)
    app.conf.update(task_ignore_result=True, worker_disable_rate_limits=True, worker_redirect_stdouts=False)
    began = runs = 0.0

    def body() -> None:
        nonlocal began, runs
        if not runs:
            began = time.perf_counter()
        runs += 1
        if runs == jobs:
            print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
            os._exit(0)  # the queue is empty: nothing is left to shut down with care

    no_op: Any = app.task(name="no_op")(body)
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(jobs):
            no_op.apply_async(producer=producer)
    worker = app.Worker(
        pool_cls="solo",  # the fastest of its pools for tasks that do nothing
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()


if __name__ == "__main__":
    main()
