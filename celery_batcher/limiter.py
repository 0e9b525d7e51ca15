"""The limiter: says what is needed, and leases it where a capacity is shared between fleets.

Beat ticks it in any process, and a turn calls it every ``capacity_interval``. For a resource one
limiter at a time has the right to lease, in the store: ticks that are late, doubled or missing
change nothing but how soon leases follow the needs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import milliseconds
from .events import Listeners, logger
from .operation import new_id
from .resources.shared import SharedResource
from .store.base import Leased

if TYPE_CHECKING:
    from .batcher import Batcher

_RIGHT_MS = 1000
_DRIFT = 0.999
"""Leases are counted a thousandth shorter: the clocks of store and process need not run alike."""


class _LostError(Exception):
    """Another limiter has the right to lease."""


class Limiter:
    """The limiter of a batcher in this process."""

    def __init__(self, batcher: Batcher, listeners: Listeners) -> None:
        self._batcher = batcher
        self._listeners = listeners
        self._pid = 0
        self._token = ""

    def step(self) -> None:
        """Say what is needed; lease for a shared resource, if the right to is free or held here."""
        resource = self._batcher.rate_limiter
        if isinstance(resource, SharedResource):
            self._lease(resource)
        elif self._listeners:
            self._listeners.emit("request", self._batcher.needs_capacity())

    def close(self) -> None:
        """Let another limiter have the right to lease at once."""
        if isinstance(self._batcher.rate_limiter, SharedResource) and self._pid == os.getpid():
            self._batcher.store.yield_limiter(self._token)

    def _lease(self, resource: SharedResource) -> None:
        batcher = self._batcher
        if self._pid != os.getpid():  # of a process that forked, children are others
            self._pid, self._token = os.getpid(), new_id()
            batcher.store.configure(batcher.limits(), [])
        ms = max(_RIGHT_MS, 3 * milliseconds(batcher.option("capacity_interval")))
        given = batcher.store.limiter(self._token, ms, str(uuid.uuid4()))
        self._listeners.emit("request", given.needs)
        if not given.mine:
            return
        resource.raise_events_to(self._listeners.emit)
        resource.adopt(given.capacity, given.reserved)
        resource.give_me(given.needs)
        try:
            resource.step(
                given.owner,
                lambda ends: self._apply(resource, ends),
                turn=self._token,
                hold=batcher.limits().hold_ms / 1000,
                weight=batcher.option("weight"),
            )
        except _LostError:
            logger.info("%s: another process leases now", batcher.name)

    def _apply(self, resource: SharedResource, ends: Mapping[int, float]) -> None:
        """Put leases in force: from now on nothing is released or claimed on older ones."""
        now, last = resource.clock.monotonic(), resource.partitions - 1
        left = {at: int((end - now) * 1000 * _DRIFT) for at, end in ends.items()}
        lasting = {at: ms for at, ms in left.items() if ms > 0}
        lacking = resource.factor - resource.worth(last)
        if not self._batcher.store.lease(self._token, Leased(lasting, last, lacking)):
            raise _LostError
