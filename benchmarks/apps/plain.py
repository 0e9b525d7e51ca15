"""Plain Celery: one task per operation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery

from apps import tape
from apps.settings import Settings

SETTINGS = Settings.load()

app = Celery("plain", broker=SETTINGS.url)
app.conf.task_ignore_result = True


@app.task
def handle(row: dict[str, Any]) -> None:
    tape.handle([row], SETTINGS.cost, SETTINGS)


def delay(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        handle.delay(row)


WAYS = {"delay": delay}
