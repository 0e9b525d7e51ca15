"""celery_batcher: a batcher that shares a resource with the batchers of other apps."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery import Celery

from apps import tape
from apps.settings import RETRY_AFTER, SHARED, THROTTLE, Settings
from celery_batcher import (
    Batcher,
    ProvisionedResource,
    RedisLeaseManager,
    SharedResource,
    Throttled,
)

SETTINGS = Settings.load()


def _provisioned() -> ProvisionedResource:
    return ProvisionedResource(SETTINGS.capacity, name=SHARED, window=SETTINGS.window)


def _leased() -> SharedResource:
    """Each app is a fleet with a store of its own: what they share are leases."""
    leases = RedisLeaseManager(SETTINGS.url, name=SHARED)
    return SharedResource(
        SETTINGS.capacity,
        factor=SETTINGS.capacity // 100,
        lease_manager=leases,
        window=SETTINGS.window,
    )


RESOURCES = {"provisioned": _provisioned, "leased": _leased}

app = Celery(SETTINGS.batcher, broker=SETTINGS.url)
app.conf.update(task_ignore_result=True, task_default_queue=SETTINGS.batcher)
if SETTINGS.control_queue:
    app.conf.batcher_control_queue = SETTINGS.control_queue

if SETTINGS.resource == "leased":
    app.conf.batcher_key_prefix = f"{SETTINGS.batcher}:"

resource = RESOURCES[SETTINGS.resource]()
batcher = Batcher(SETTINGS.batcher, app=app, rate_limiter=resource, **SETTINGS.options)


@batcher.watcher(name=f"{SETTINGS.batcher}.handle", max_batch_size=SETTINGS.batch_size)
def handle(batch: Any) -> None:
    cost = batch.cost if isinstance(batch.cost, int) else next(iter(batch.cost.values()))
    tape.handle([operation.payload for operation in batch], cost, SETTINGS)
    if _is_throttled():
        raise Throttled(retry_after=RETRY_AFTER)


def _is_throttled() -> bool:
    try:
        Path(SETTINGS.directory, THROTTLE).unlink()
    except FileNotFoundError:
        return False
    return True


def packed(rows: Iterable[dict[str, Any]]) -> None:
    handle.enqueue_many(rows, cost=SETTINGS.cost)


def backfill(rows: Iterable[dict[str, Any]]) -> None:
    handle.enqueue_many(rows, cost=SETTINGS.cost, priority="backfill")


WAYS = {"packed": packed, "backfill": backfill}
