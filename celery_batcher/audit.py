"""The audit: counters against the data, in steps that hold nobody up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from .clock import Clock
from .errors import StoreUnavailableError
from .events import Listeners
from .operation import new_id
from .store.base import Store
from .store.counts import AuditStep, Difference

logger = logging.getLogger("celery_batcher")

_STEPS, _SECONDS = 8, 0.003
"""A walk takes this many steps at most, and begins none after so many seconds."""


class Auditor:
    """Walks the audit of one batcher, and tells listeners what it finds.

    The store knows how far the walk is: any process may go on with it, and two may do so at once.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Callable[[], Store],
        clock: Clock,
        listeners: Listeners,
        every_ms: Callable[[], int],
    ) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._listeners = listeners
        self._every_ms = every_ms
        self._due_at = 0.0

    def walk(self, until: float = math.inf) -> None:
        """Take some steps, if a pass is on or due.

        Args:
            until: the monotonic time after which no step begins.
        """
        now = self._clock.monotonic()
        until = min(until, now + _SECONDS)
        for _ in range(_STEPS):
            if not self._due_at <= now < until:
                return
            step = self._step()
            self._tell(step)
            now = self._clock.monotonic()
            self._due_at = now + step.wait_ms / 1000

    def _step(self) -> AuditStep:
        """One step; a store that refuses it is no reason to break a turn off."""
        every_ms = self._every_ms()
        try:
            return self._store().audit(new_id(), every_ms)
        except StoreUnavailableError as exc:
            return AuditStep(every_ms, skipped=(str(exc),))

    def _tell(self, step: AuditStep) -> None:
        for difference in step.differences:
            self._tell_difference(difference)
        for reason in step.skipped:
            logger.warning("%s: the audit left out a part: %s", self._name, reason)
            self._listeners.emit("audit-skip", 0, reason)
        if step.over and not step.wrong:
            self._listeners.emit("audit-pass", step.compared)

    def _tell_difference(self, found: Difference) -> None:
        what = f"{found.name} of {found.watcher}" if found.watcher else found.name
        message = f"{what} was counted as {found.counted}, but the data say {found.recorded}"
        if found.repaired:
            message += ": it is that now"
        logger.log(
            logging.ERROR if found.repaired else logging.WARNING, "%s: %s", self._name, message
        )
        self._listeners.emit("audit-fail", found.counted - found.recorded, message, found)
