"""One flush: from lanes into the index, from the index into batches, from batches into Celery."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .announcing import Announcer
from .clock import Clock
from .errors import BrokerUnavailableError
from .events import Listeners
from .intakes.base import Intake, Leased
from .store.base import Refused, Released, Store, TakenBack
from .store.options import Limits
from .wire import MAX_OPERATIONS

logger = logging.getLogger("celery_batcher")

_STAGE_BYTES = 1024 * 1024
_PUBLISH_EVERY = 16
_UNCLAIMED_MS = 1000
_MOST = 256


class TurnLostError(Exception):
    """Another process has the turn: whatever was not recorded is its business now."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Why a flush stopped, and when to try again.

    ``wait_ms`` counts from ``refused_at`` (monotonic seconds); -1: at the next tick. ``freed`` is
    that of `Refused`.
    """

    reason: str
    wait_ms: int
    refused_at: float
    freed: bool = False


class Flusher:
    """Does the work of a turn. Every act names the turn's token, and is refused once it is lost."""

    def __init__(
        self,
        *,
        token: str,
        store: Store,
        intake: Intake,
        publish: Callable[[Sequence[Released]], Sequence[str]],
        on_taken_back: Callable[[TakenBack, str], None],
        new_batch_id: Callable[[], str],
        listeners: Listeners,
        announcer: Announcer,
        clock: Clock,
    ) -> None:
        self.token = token
        self._store = store
        self._intake = intake
        self._publish = publish
        self._on_taken_back = on_taken_back
        self._new_batch_id = new_batch_id
        self._listeners = listeners
        self._announcer = announcer
        self._clock = clock
        self._next_lane = ""

    def adopt(self) -> None:
        """Take over what an earlier turn left half-done in lanes."""
        self._intake.adopt(self.token)

    def take_in(self, lanes: Sequence[str], room: int, until: float) -> bool:
        """Move messages from lanes into the index; True when there may be more.

        Args:
            lanes: watchers whose lanes are active.
            room: operations that the index may still take.
            until: the monotonic time at which to stop, after one look at least. The next call
                goes on where this one stopped.
        """
        self._intake.keep_alive()
        pending = self._in_rotation(lanes)
        while pending and room > 0:
            taken = self._intake.take(self.token, pending)
            room -= self._stage(taken.leased)
            if taken.empty:
                self._store.idle(taken.empty)
            pending = taken.unread(pending)
            if pending and self._clock.monotonic() >= until:
                self._next_lane = pending[0]
                return True
        return False

    def _in_rotation(self, lanes: Sequence[str]) -> list[str]:
        """The lanes, beginning where the last look broke off."""
        ordered = sorted(lanes)
        first = bisect_left(ordered, self._next_lane)
        return ordered[first:] + ordered[:first]

    def _stage(self, leased: Sequence[Leased]) -> int:
        leases = self._intake.leases(self.token)
        operations = 0
        for chunk in _chunks(leased):
            staged = self._store.stage(self.token, [one.arrival for one in chunk], leases)
            if staged.lost:
                raise TurnLostError
            operations += staged.operations
            arrived = self._intake.acknowledge(self.token, chunk)
            if arrived:
                self._store.forget(arrived)
            if staged.set_aside:
                logger.error(
                    "%d messages could not be read and were set aside: status() shows them",
                    staged.set_aside,
                )
        return operations

    def flush(self, limits: Limits) -> Flushed:
        """Release what may be released now."""
        self._listeners.emit("flush-start")
        pending: list[Released] = []
        batches = operations = 0
        while True:
            so_far = batches, operations
            answer = self._store.release(self.token, self._new_batch_id(), limits, so_far)
            if isinstance(answer, Refused):
                refused_at = self._clock.monotonic()
                break
            pending.append(answer)
            batches += 1
            operations += answer.operations
            if len(pending) >= _PUBLISH_EVERY:
                self._hand_over(pending)
                pending = []
        self._hand_over(pending)
        if answer.reason == "lost":
            raise TurnLostError
        if not batches:
            self._announcer.released_nothing(answer.reason)
        self._listeners.emit("flush-done", batches)
        return Flushed(answer.reason, answer.wait_ms, refused_at, answer.freed)

    def _hand_over(self, batches: Sequence[Released]) -> None:
        """Publish the tasks of batches. What fails stays due, and is published by `upkeep`."""
        if not batches:
            return
        published = self._publish(batches)
        if published:
            self._store.published(published)
        self._announcer.released(batches)

    def upkeep(self, limits: Limits) -> None:
        """Take back what is late, recall what nobody claims, publish what is due."""
        reason = "the handler did not settle before its deadline"
        while expired := self._store.expire(self.token, limits, reason, _MOST):
            for late in expired:
                logger.warning(
                    "took back %d operations of %s: %s", late.operations, late.watcher, reason
                )
                self._on_taken_back(late, reason)
        while recalled := self._store.probe(self.token, _UNCLAIMED_MS, _MOST):
            for one in recalled:
                logger.warning(
                    "recalled %d operations of %s: no worker claims them",
                    one.operations,
                    one.watcher,
                )
        offers = self._store.offer(self.token, _MOST)
        published = self._publish(offers) if offers else []
        if published:
            self._store.published(published)

    def close(self) -> None:
        """Give back leases and the turn."""
        try:
            self._intake.close(self.token)
        except BrokerUnavailableError as exc:
            logger.warning("leases stay until the next turn: %s", exc)
        self._store.leave_turn(self.token)


def _chunks(leased: Sequence[Leased]) -> Iterator[list[Leased]]:
    """Messages in the portions that one call of the store may carry."""
    chunk: list[Leased] = []
    operations = size = 0
    for one in leased:
        operations += one.operations
        size += len(one.arrival.entries)
        if chunk and (operations > MAX_OPERATIONS or size > _STAGE_BYTES):
            yield chunk
            chunk, operations, size = [], one.operations, len(one.arrival.entries)
        chunk.append(one)
    if chunk:
        yield chunk
