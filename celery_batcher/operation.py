"""An operation: one unit of work with a cost."""

from __future__ import annotations

import hashlib
import os
from enum import IntEnum
from itertools import count
from typing import Any, NamedTuple

from .costs import Cost


class Priority(IntEnum):
    """The order in which a watcher's operations are released; its value is on the wire."""

    high = 0
    normal = 1
    backfill = 2


class Operation(NamedTuple):
    """One unit of work, as its producer made it and as its handler gets it.

    Attributes:
        id: unique in the batcher; the producer's own, or made by `new_id`.
        watcher: name of the watcher that handles it.
        cost: units of capacity it takes, an integer from 0 to 2**53 - 1; a mapping of them where
            the capacity has dimensions.
        payload: what the handler needs; anything the serializer can carry.
        attempt: 1 in the first try.
        batchable: False keeps it alone in a batch.
        key: orders operations and shares fairly between keys; None is a key of its own.
        priority: ``high``, ``normal`` or ``backfill``.
        dedupe_for: seconds after its arrival, at least, in which others with its dedupe_key are
            dropped; None without a dedupe_key.
    """

    id: str
    watcher: str
    cost: Cost
    payload: Any
    attempt: int = 1
    batchable: bool = True
    key: str | None = None
    priority: str = "normal"
    dedupe_for: float | None = None


def deduped_id(watcher: str, dedupe_key: str) -> str:
    """The id of a watcher's operations that have this dedupe_key: the same wherever it is asked."""
    name = f"{len(watcher)}:{watcher}{dedupe_key}".encode(errors="surrogatepass")
    return f"dedupe-{hashlib.blake2b(name, digest_size=16).hexdigest()}"


class IdFactory:
    """Ids that are unique in the fleet: 64 random bits per process, then a count.

    A forked child draws new random bits, so that it never repeats its parent's ids.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = count()

    def __call__(self) -> str:
        return f"{self._prefix}{next(self._count):08x}"


new_id = IdFactory()
