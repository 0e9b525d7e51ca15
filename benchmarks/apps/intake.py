"""Ends when every operation that was enqueued is in the index: `python -m apps.intake`."""

import time

from apps.batched import batcher

while batcher.status().admitted:
    time.sleep(0.2)
