"""What is told of a claimed batch, once its outcomes are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from celery.exceptions import SoftTimeLimitExceeded

from .announcing import Announcer
from .batch import Batch
from .outcomes import Outcome, is_final
from .store.base import Died


class Report:
    """Tells of one batch, from its claim on.

    Args:
        unread: ids and attempts of operations whose payloads could not be read.
        max_attempts: after so many an operation is dead; 0: no limit.
    """

    def __init__(
        self,
        announcer: Announcer,
        batch: Batch,
        unread: Sequence[tuple[str, int]],
        max_attempts: int,
    ) -> None:
        self._announcer = announcer
        self._batch = batch
        self._unread = iter(unread)
        self._max_attempts = max_attempts
        self._dead = 0
        self._began = batch.clock.monotonic()

    def recorded(
        self, left: Sequence[int | None], outcomes: Sequence[Outcome], reason: str
    ) -> SoftTimeLimitExceeded | None:
        """Tell of the operations that recorded outcomes have made dead letters.

        Args:
            left: the position in the batch of each outcome; None where it is unreadable.
            reason: of outcomes that have none of their own.

        Returns:
            The soft limit that came meanwhile, if any.
        """
        if {one.kind for one in outcomes}.isdisjoint("xra"):
            return None
        operations, died = self._batch.operations, list[tuple[Died, str]]()
        for at, one in zip(left, outcomes, strict=True):
            if at is None:
                if one.kind == "x":
                    died.append((Died(*next(self._unread)), one.reason))
            elif is_final(operations[at], one, self._max_attempts):
                died.append((Died(operations[at].id, operations[at].attempt), one.reason or reason))
        self._dead += len(died)
        try:
            self._announcer.dead(self._batch.watcher, self._batch.id, died)
        except SoftTimeLimitExceeded as exc:
            return exc
        return None

    def settled(self, became: Mapping[str, int], state: str, error: BaseException | None) -> None:
        """Tell that all is recorded. ``became``: operations by the kind of their outcome."""
        tried = became["r"] + became["a"] + became["x"]
        counts = {
            "done": became["d"],
            "retried": tried - self._dead,
            "halved": became["h"],
            "given_back": became["g"],
            "dead": self._dead,
        }
        runtime = self._batch.clock.monotonic() - self._began
        try:
            self._announcer.settled(
                self._batch, state=state, counts=counts, runtime=runtime, error=error
            )
        except SoftTimeLimitExceeded:
            return  # there is nothing left to break off
