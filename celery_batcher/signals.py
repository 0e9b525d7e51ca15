"""Signals: what happens with a batcher in this process, told in the way of Celery's own signals.

    from celery_batcher.signals import batch_settled

    @batch_settled.connect
    def count(sender, watcher, done, runtime, **kwargs):
        statsd.timing(f"batches.{watcher}", runtime)

The sender is the `Batcher`. A receiver takes the arguments of its signal (docs/events.md says what
they mean) and ``**kwargs``. It is called where the thing happens, before that goes on: a slow one
makes flushes and handlers late. One that raises is logged and breaks nothing. Celery keeps weak
references to receivers: connect a closure with ``weak=False``.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

operations_enqueued = Signal(
    name="operations_enqueued", providing_args=("watcher", "operations", "cost")
)
batch_released = Signal(
    name="batch_released",
    providing_args=("batch_id", "watcher", "operations", "cost", "trigger", "oldest_age"),
)
batch_started = Signal(
    name="batch_started", providing_args=("batch_id", "watcher", "operations", "cost")
)
batch_settled = Signal(
    name="batch_settled",
    providing_args=(
        "batch_id",
        "watcher",
        "operations",
        "cost",
        "state",
        "done",
        "retried",
        "halved",
        "given_back",
        "dead",
        "runtime",
        "error",
    ),
)
operation_dead = Signal(
    name="operation_dead",
    providing_args=("operation_id", "watcher", "batch_id", "attempt", "reason"),
)
batcher_paused = Signal(name="batcher_paused", providing_args=("pause_time",))
batcher_resumed = Signal(name="batcher_resumed", providing_args=())
resource_throttled = Signal(
    name="resource_throttled", providing_args=("resource", "watcher", "batch_id", "closed_for")
)
backfill_progress = Signal(name="backfill_progress", providing_args=("backfill", "progress"))
