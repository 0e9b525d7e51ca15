"""The app of compose.yaml: a store that takes 1,000 units a second, and whoever writes to it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import after_task_publish, heartbeat_sent

from celery_batcher import Batch, Batcher, ProvisionedResource

logger = logging.getLogger(__name__)

app = Celery("proj", broker=os.environ.get("BROKER_URL", "redis://localhost:6379/0"))
app.conf.update(
    batcher_store_url=os.environ.get("STORE_URL"),  # unset: the broker, where that is Redis
    batcher_control_queue="control",
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
)
store = Batcher("store", app=app, rate_limiter=ProvisionedResource(1_000))


@store.watcher(max_batch_size=100, max_operation_time=30.0)
def write_orders(batch: Batch) -> None:
    """Write a batch of orders; your client's call goes here."""
    time.sleep(0.01)
    logger.info("wrote %d orders, %s units", len(batch), batch.cost)


def alive(**_: Any) -> None:
    """Tell the image's health check that this process works, and reaches the broker."""
    Path(os.environ.get("ALIVE", "/tmp/alive")).touch()


heartbeat_sent.connect(alive)  # a worker
after_task_publish.connect(alive)  # beat, every second
