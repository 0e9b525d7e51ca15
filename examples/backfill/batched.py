"""The back-fill with celery_batcher: as fast as the store's capacity allows, never faster."""

from __future__ import annotations

from collections.abc import Iterable

from celery import Celery

import client
from celery_batcher import Batch, Batcher, ProvisionedResource, Throttled
from pricing import CAPACITY, Document, request_units

app = Celery("batched")
app.config_from_object("celeryconfig")
app.conf.batcher_control_queue = "control"

# Capacity is kept where handlers start, the store counts where requests arrive: the 50 ms
# on top of its one second are for those that take longer on the way than others.
cosmos = Batcher("cosmos", app=app, rate_limiter=ProvisionedResource(CAPACITY, window=1.05))


@cosmos.watcher(max_batch_size=100)
def write_cities(batch: Batch) -> None:
    try:
        client.bulk_write([operation.payload for operation in batch])
    except client.OverCapacityError as refused:
        raise Throttled(retry_after=refused.retry_after) from refused


def enqueue(cities: Iterable[Document]) -> None:
    write_cities.enqueue_many(cities, cost=request_units)
