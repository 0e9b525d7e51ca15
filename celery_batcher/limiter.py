"""The limiter: says what is needed, and leases it where a capacity is shared between fleets.

Beat ticks it in any process, and a turn calls it every ``capacity_interval``. For a resource one
limiter at a time has the right to lease, in the store: ticks that are late, doubled or missing
change nothing but how soon leases follow the needs.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .config import milliseconds
from .errors import BatcherError
from .events import Listeners
from .operation import new_id
from .resources.shared import SharedResource
from .store import base as store

if TYPE_CHECKING:
    from .batcher import Batcher

logger = logging.getLogger("celery_batcher")

_RIGHT_MS = 1000


class _TermOverError(Exception):
    """Another limiter has the right to lease."""


class Limiter:
    """The limiter of a batcher in this process."""

    def __init__(self, batcher: Batcher, listeners: Listeners) -> None:
        self._batcher = batcher
        self._listeners = listeners
        self._pid = 0
        self._token = ""
        self._apart: threading.Thread | None = None

    def step(self) -> None:
        """Say what is needed; lease for a shared resource, if the right to is free or held here."""
        resource = self._batcher.rate_limiter
        if isinstance(resource, SharedResource):
            self._lease(resource)
        elif self._listeners:
            self._listeners.emit("request", self._batcher.needs_capacity())

    def step_apart(self) -> None:
        """The same for a turn, which must not wait for a lease manager that does not answer."""
        if not isinstance(self._batcher.rate_limiter, SharedResource):
            self.step()
        elif self._apart is None or not self._apart.is_alive():
            name = f"celery_batcher:{self._batcher.name}:limit"
            self._apart = threading.Thread(target=self._step_safely, name=name, daemon=True)
            self._apart.start()

    def close(self) -> None:
        """Let another limiter have the right to lease at once."""
        if isinstance(self._batcher.rate_limiter, SharedResource) and self._pid == os.getpid():
            self._batcher.store.yield_limiter(self._token)

    def _step_safely(self) -> None:
        try:
            self.step()
        except BatcherError as exc:
            logger.warning("%s: no step of the limiter: %s", self._batcher.name, exc)
            self._listeners.emit("error", 1, str(exc))
        except Exception:
            logger.exception("%s: no step of the limiter", self._batcher.name)

    def _lease(self, resource: SharedResource) -> None:
        batcher = self._batcher
        if self._pid != os.getpid():  # of a process that forked, children are others
            self._pid, self._token = os.getpid(), new_id()
            batcher.store.configure(batcher.limits(), [])
        ms = max(_RIGHT_MS, 3 * milliseconds(batcher.option("capacity_interval")))
        given = batcher.store.limiter(self._token, ms, str(uuid.uuid4()))
        answered = resource.clock.monotonic()
        self._listeners.emit("request", given.needs)
        if not given.term:
            return
        resource.raise_events_to(self._listeners.emit)
        resource.adopt(given.capacity, given.reserved)
        resource.give_me(given.needs)
        try:
            resource.step(
                given.owner,
                lambda ends: self._apply(resource, ends, given, answered),
                turn=str(given.term),
                hold=given.hold_ms / 1000,
                weight=batcher.option("weight"),
            )
        except _TermOverError:
            logger.info("%s: another process leases now", batcher.name)

    def _apply(
        self,
        resource: SharedResource,
        ends: Mapping[int, float],
        given: store.Limiter,
        answered: float,
    ) -> None:
        """Put leases in force: from now on nothing is released or claimed on older ones.

        The store's time was at least `now_ms` when it had answered, so ends are not too late.
        """
        until = {at: given.now_ms + int((end - answered) * 1000) for at, end in ends.items()}
        lacking = resource.factor - resource.worth(resource.partitions - 1)
        leased = store.Leased(until, resource.partitions - 1, lacking)
        if not self._batcher.store.lease(given.term, leased):
            raise _TermOverError
