"""The batcher: what is written costs 10 units each, and the store sells some thousands a second."""

from __future__ import annotations

import time

from celery_batcher import Batch, Batcher, ProvisionedResource

COST = 10
WRITE_TIME = 0.005

ingest = Batcher("ingest", rate_limiter=ProvisionedResource(10_000))


@ingest.watcher(name="ingest.write", max_batch_size=10, cost=COST)
def write(batch: Batch) -> None:
    """Write a batch: here it takes as long as a fast store would."""
    time.sleep(WRITE_TIME)
