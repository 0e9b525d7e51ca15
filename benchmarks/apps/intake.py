"""Moves everything that was enqueued into the index, and ends: `python -m apps.intake`."""

from apps.batched import batcher
from celery_batcher.turn import one_flush

batcher.pause(None)
while batcher.status().admitted:
    one_flush(batcher._duties)
batcher.resume()
