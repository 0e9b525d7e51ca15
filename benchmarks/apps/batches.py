"""celery-batches: tasks are collected in the worker's main process and handed over as lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery
from celery_batches import Batches, SimpleRequest

from apps import tape
from apps.settings import Settings

SETTINGS = Settings.load()

app = Celery("batches", broker=SETTINGS.url)
# Each of the two processes may hold one batch while the next one fills.
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=2 * SETTINGS.batch_size)


@app.task(base=Batches, flush_every=SETTINGS.batch_size, flush_interval=0.1)
def handle(requests: list[SimpleRequest]) -> None:
    rows = [request.args[0] for request in requests]
    tape.handle(rows, SETTINGS.cost * len(rows), SETTINGS)


def delay(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        handle.delay(row)


WAYS = {"delay": delay}
