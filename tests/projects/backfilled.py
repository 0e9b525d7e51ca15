"""A project with a back-fill, run by real processes that the tests kill."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Any

from celery import Celery

from celery_batcher import Backfill, BackfillRunningError, Batcher, Row


def build(settings: dict[str, Any]) -> Backfill:
    """The back-fill of a project; each process makes its own."""
    app = Celery("backfilled", broker=settings["broker"], set_as_current=False)
    app.conf.update(batcher_store_url=settings["store"], batcher_key_prefix=settings["prefix"])
    batcher = Batcher("b", app=app, buffer_size=10**9)

    @batcher.watcher(name="write", max_batch_size=1000)
    def write(batch: Any) -> None:
        """Never run: the tests look into the buffer."""

    @write.backfill(
        "numbers", chunk=settings["chunk"], lease_time=settings["lease"], max_waiting=10**9
    )
    def numbers(checkpoint: Any) -> Iterator[Any]:
        for n in range(checkpoint or 0, settings["rows"]):
            # Some rows have a checkpoint, most do not.
            yield Row(n, checkpoint=n + 1) if n % 7 == 0 else n

    return numbers


def run(settings: dict[str, Any], told: Any = None) -> None:
    """Run the back-fill; tell how it ended, and how much memory that took."""
    try:
        phase = build(settings).run().phase
    except BackfillRunningError as exc:
        phase = f"run by {exc.owner}"
    if told is not None:
        told.send((phase, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
    os._exit(0)  # nothing is left to be tidied up
