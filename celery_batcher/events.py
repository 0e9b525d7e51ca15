"""Listeners: what happened in this process, with the names and units of go-batcher."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from typing import Any

logger = logging.getLogger("celery_batcher")

Listener = Callable[[str, int, str, Any], None]

EVENTS = {
    "batch": "operations handed to a handler (only with emit_batch); metadata: the operations",
    "bisect": "operations of a batch that failed and is tried again in halves; metadata: its id",
    "pause": "milliseconds of a pause that began (-1: until resumed)",
    "resume": "0; a pause or a drain was ended",
    "drain": "operations to finish when the drain began",
    "shutdown": "0; the batcher was stopped in this process",
    "request": "cost of everything neither done nor dead, every capacity_interval",
    "capacity": "capacity of the resource when it was configured, and whenever it changes",
    "target": "cost that a `SharedResource` was asked for",
    "allocated": "index of a partition that was leased",
    "released": "index of a partition that is not used any more, or whose lease is over",
    "failed": "index of a partition that another fleet was faster to lease",
    "provision-start": "partitions that a lease manager began to provision",
    "provision-done": "partitions that it provisioned",
    "created-container": "0; msg is its address",
    "verified-container": "0; msg is its address; it was there",
    "created-blob": "index of the partition",
    "verified-blob": "index of the partition; its blob was there",
    "flush-start": "0; a flush began",
    "flush-done": "batches that the flush released",
    "audit-pass": "counters compared; all of them said what the data say",
    "audit-fail": "by how much a counter was wrong; msg has both numbers, metadata a `Difference`",
    "audit-skip": "0; msg says what the audit left out, and why",
    "error": "1; msg says what went wrong in the turn, or with a lease manager, once an outage",
}
"""Each event and its ``val``."""


class Listeners:
    """The listeners of one batcher in this process.

    A listener that fails is logged and never breaks what it listens to.
    """

    def __init__(self) -> None:
        self._listeners: dict[int, Listener] = {}
        self._ids = count(1)

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, listener: Listener) -> int:
        """Add a listener; return the id to remove it by."""
        id = next(self._ids)
        self._listeners[id] = listener
        return id

    def remove(self, id: int) -> None:
        """Remove a listener; an unknown id is ignored."""
        self._listeners.pop(id, None)

    def emit(self, event: str, val: int = 0, msg: str = "", metadata: Any = None) -> None:
        """Tell every listener."""
        for listener in list(self._listeners.values()):
            try:
                listener(event, val, msg, metadata)
            except Exception:
                logger.exception("listener %r failed on event %r", listener, event)
