"""The app of compose.yaml: a store of 1,000 units per second."""

from __future__ import annotations

import logging
import os

from celery import Celery

from celery_batcher import Batch, Batcher, ProvisionedResource

logger = logging.getLogger(__name__)

app = Celery("proj", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))
app.conf.batcher_control_queue = "control"
store = Batcher("store", app=app, rate_limiter=ProvisionedResource(1_000))


@store.watcher(max_batch_size=100)
def write_orders(batch: Batch) -> None:
    """Write a batch of orders."""
    logger.info("writing %d orders, %d units", len(batch), batch.cost)
