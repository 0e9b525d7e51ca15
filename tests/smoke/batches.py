"""What workers of the smoke tests run; pytest-celery lays this file into each of them."""

from __future__ import annotations

import json
import time

from celery import Celery
from redis import Redis

from celery_batcher import Batch, Batcher, ProvisionedResource

CAPACITY = 200
HANDLED = "handled"
"""The list in the result backend in which handlers note what they get."""


def build(app: Celery) -> Batcher:
    """The batcher of the smoke tests: payloads say what is to become of an operation."""
    resource = ProvisionedResource(CAPACITY)
    batcher = Batcher(
        "smoke", app=app, rate_limiter=resource, start_grace=0.05, max_operation_time=3.0
    )
    notes = Redis.from_url(app.conf.result_backend)

    @batcher.watcher(name="work", max_batch_size=20, ignore_result=False)
    def work(batch: Batch) -> None:
        started = time.monotonic()
        for op in batch:
            note = {"n": op.payload["n"], "attempt": op.attempt, "at": started, "batch": batch.id}
            notes.rpush(HANDLED, json.dumps(note))
            if op.payload.get("do") == "retry" and op.attempt == 1:
                batch.retry(op)
            elif op.payload.get("do") == "fail":
                batch.fail(op, "told to fail")
            elif op.payload.get("do") == "dawdle":
                time.sleep(0.1)

    return batcher
