"""celery_batcher: operations wait in the store and are released as batches within the capacity."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle, islice
from typing import Any

from celery import Celery

from apps import tape
from apps.settings import Settings
from celery_batcher import Batcher, ProvisionedResource

SETTINGS = Settings.load()

app = Celery("batched", broker=SETTINGS.url)
app.conf.task_ignore_result = True
if SETTINGS.control_queue:
    app.conf.batcher_control_queue = SETTINGS.control_queue

batcher = Batcher(
    "bench",
    app=app,
    rate_limiter=ProvisionedResource(SETTINGS.capacity) if SETTINGS.capacity else None,
    buffer_size=10_000_000,
    max_concurrent_batches=SETTINGS.max_concurrent_batches or None,
)


def handle(batch: Any) -> None:
    rows, cost = [], 0
    for operation in batch:
        rows.append(operation.payload)
        cost += operation.cost
    tape.handle(rows, cost, SETTINGS)


watchers = [
    batcher.watcher(name=f"bench.handle_{number}", max_batch_size=SETTINGS.batch_size)(handle)
    for number in range(SETTINGS.watchers)
]
in_turn = cycle(watchers)
options: dict[str, Any] = {"cost": SETTINGS.cost}


def _key(row: dict[str, Any]) -> str:
    return f"key-{row['id'] % SETTINGS.keys}"


if SETTINGS.keys:
    options["key"] = _key


def enqueue(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        key = _key(row) if SETTINGS.keys else None
        next(in_turn).enqueue(row, cost=SETTINGS.cost, key=key)


def one_per_message(rows: Iterable[dict[str, Any]]) -> None:
    next(in_turn).enqueue_many(rows, pack=1, **options)


def packed(rows: Iterable[dict[str, Any]]) -> None:
    next(in_turn).enqueue_many(rows, **options)


def in_tens(rows: Iterable[dict[str, Any]]) -> None:
    """Ten rows to each watcher in turn."""
    remaining = iter(rows)
    while ten := list(islice(remaining, 10)):
        next(in_turn).enqueue_many(ten, **options)


WAYS = {
    "enqueue": enqueue,
    "one_per_message": one_per_message,
    "packed": packed,
    "in_tens": in_tens,
}
