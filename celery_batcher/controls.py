"""What operators do with a batcher and ask of it, for the whole fleet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from . import beat
from .announcing import Announcer
from .backfill import BackfillProgress, progress_of
from .checks import Checker, Problem
from .clock import Clock
from .config import DELAY, Unset, check_value, milliseconds, seconds
from .configured import Configured
from .duties import Duties
from .enqueuing import Patience
from .errors import ConfigurationError
from .events import Listeners, logger
from .explaining import MOST, Explanation, eta, explain
from .looking import names_of, peek
from .metrics import Meters, RecentBatch, meters_of, recent_batch
from .operation import Operation
from .purging import Purge
from .status import Lease, Status, status_of
from .store.options import Limits
from .turn import TurnThread
from .watcher import Watcher

MASK_FAILED = "<masked: the mask failed>"


class Controls(Configured):
    """The controls and the numbers of a batcher; what they change or tell is in the store."""

    clock: Clock
    _listeners: Listeners
    _announcer: Announcer
    _duties: Duties
    _turn: TurnThread
    _checker: Checker

    def limits(self) -> Limits:
        """What bounds the batches, in the units of the store."""
        return self._duties.limits()

    def pause(self, pause_time: float | timedelta | Unset | None = Unset.option) -> None:
        """Stop releasing and starting batches in the whole fleet.

        Args:
            pause_time: seconds; None: until `resume`; without it the option ``pause_time``. Of
                two pauses the later end wins.
        """
        given = self.option("pause_time") if pause_time is Unset.option else pause_time
        try:
            ms = -1 if given is None else milliseconds(seconds(given))
        except ValueError as exc:
            raise ConfigurationError(f"pause({given!r}): seconds above 0, or None") from exc
        if self.store.pause(ms):
            self._listeners.emit("pause", ms)
            self._announcer.paused(ms)

    def drain(self, timeout: float | timedelta | None = None) -> bool:
        """Take no more operations, in the whole fleet, and wait until all there are have ended.

        Whoever enqueues gets `BatcherStoppedError`, until `resume`. What is in lanes, waits, is
        delayed or runs is finished as always, within the capacity, by the workers of the fleet. A
        process that dies in here leaves the batcher drained.

        Args:
            timeout: seconds; None: as long as it takes. A batcher that is paused, or that nobody
                flushes, does not end.

        Returns:
            True when nothing is left but dead letters; False when the time was over first.
        """
        given = None if timeout is None else check_value(DELAY, "timeout", timeout, "drain")
        deadline = self.clock.monotonic() + (math.inf if given is None else given)
        if self.store.drain():
            self._listeners.emit("drain", self.store.counts().unfinished)
        patience = Patience(self.clock, deadline)
        self.flush()
        while self.store.counts().unfinished:
            if patience.over():
                return False
        return True

    def resume(self) -> None:
        """End a pause or a drain, in the whole fleet."""
        if self.store.pause(0):
            self._listeners.emit("resume")
            self._announcer.resumed()
        self.flush()

    def flush(self) -> None:
        """Flush as soon as possible, wherever the turn is held. It brings no extra capacity."""
        self._want(wake=True)
        self._turn.wake()

    def set_capacities(self, capacities: Sequence[int], reserved: int | None = None) -> None:
        """Change what the resource may give, by limit; what its `set_capacity` ends in.

        Raises:
            ConfigurationError: the resource has other dimensions or windows in the store.
        """
        self._duties.check_shape()
        self.store.set_capacity(capacities, reserved)
        self._listeners.emit("capacity", capacities[0])
        self.flush()

    def operations_in_buffer(self) -> int:
        """Operations not yet released, those in lanes included."""
        return self.store.counts().buffered

    def needs_capacity(self) -> int:
        """The cost of all operations that are neither done nor dead, in the first dimension."""
        return self.store.counts().unsettled_cost

    def inflight(self) -> int:
        """Batches that are released and not settled."""
        counts = self.store.counts()
        return counts.open_batches + counts.running_batches

    def status(self) -> Status:
        """The state of the batcher, all of one moment."""
        counts = self.store.counts()
        set_aside = tuple(self.store.set_asides(10)) if counts.set_aside else ()
        dimensions = None if self.rate_limiter is None else self.dimensions
        return status_of(self.name, counts, set_aside, dimensions=dimensions)

    def meters(self) -> Meters:
        """What the whole fleet has counted since ever: operations, batches, flushes, histograms."""
        return meters_of(self.store.meters())

    def recent_batches(self, most: int = 50) -> list[RecentBatch]:
        """The batches that were released last, the newest first, and what became of them.

        Args:
            most: how many; the store keeps 100 that have ended.
        """
        return [recent_batch(one) for one in self.store.recent(most)]

    def peek(self, watcher: str | Watcher | None = None, *, most: int = 10) -> list[Operation]:
        """The operations next in turn, as the index has them; it changes nothing.

        Those of a key that waits at its caps are last. What is in lanes or delayed is not among
        them. A payload that cannot be read is None. Show payloads by `shown`.

        Args:
            watcher: or its name; without one, of all watchers in turns.
            most: up to 1,000; fewer come when their payloads are large.

        Raises:
            NoWatcherError: the watcher is unknown.
        """
        return peek(self, watcher, most)

    def purge(self, watcher: str | Watcher | None = None) -> int:
        """Remove everything in the buffer for good: what waits, is delayed or in lanes.

        What is released or runs is not touched. What is enqueued meanwhile may stay, and so may
        what a process that flushes just releases: pause first. Whoever waits for results of
        operations that are removed waits for ever, as after ``celery purge``. Their ids and
        dedupe_keys are free again.

        Args:
            watcher: or its name, to empty only its part.

        Returns:
            How many operations were removed.

        Raises:
            NoWatcherError: the watcher is unknown.
            BrokerUnavailableError: lanes could not be read; what had come out of them is gone.
        """
        names = names_of(self, watcher)
        removed = Purge(self, self._duties, names, every=watcher is None).run()
        logger.info("%s: %d operations were purged", self.name, removed)
        return removed

    def leases(self) -> tuple[Lease, ...]:
        """The partitions of a `SharedResource` that this fleet has leased, as the store has them.

        None with any other resource.
        """
        return tuple(Lease(one.number, one.capacity, one.ms / 1000) for one in self.store.leases())

    def backfill_progress(self) -> list[BackfillProgress]:
        """How far all back-fills are, those included that this process does not know."""
        states = {one.name: progress_of(one) for one in self.store.backfills()}
        for name, backfill in self.backfills.items():
            states.setdefault(name, backfill.status())
        return [states[name] for name in sorted(states)]

    def shown(self, payload: Any) -> Any:
        """What operators are shown of a payload: what the option ``mask`` makes of it.

        A mask that fails hides all of it.
        """
        mask = self.option("mask")
        if mask is None:
            return payload
        try:
            return mask(payload)
        except Exception as exc:  # noqa: BLE001 - a traceback might quote the payload
            logger.warning("the mask of %s failed: %s", self.name, type(exc).__name__)
            return MASK_FAILED

    def explain(self, what: str | Watcher, *, most: int = MOST) -> Explanation:
        """Why an operation waits, what it waits for, and since when; print it to read it.

        It reads the store in small steps and changes nothing.

        Args:
            what: a watcher or its name, for its operation next in turn; else an operation's id.
            most: operations to look at before the search for an id ends without success.

        Raises:
            NoWatcherError: the watcher is another batcher's.
            ConfigurationError: it is neither.
        """
        return explain(self, what, most)

    def eta(self) -> float | None:
        """Seconds until all that is in the buffer is released, lanes included, as it looks now.

        The longest of (cost - credit) x window / (usable capacity x share), over the windows of
        the first dimension, after a pause or a 429; and no less than the longest delay. Share: its
        weight among the batchers in need now. Further dimensions, and workers that are too few,
        are not counted.

        Returns:
            0.0 when the buffer is empty; None when nobody knows: paused until resumed, nobody
            flushes, no capacity, or no resource.
        """
        return eta(self)

    def check(self, timeout: float | timedelta = 1.0) -> list[Problem]:
        """What is wrong with the store, the broker, the settings and the workers; best: nothing.

        The first turn of each process logs what is found without asking workers.

        Args:
            timeout: seconds in which workers must answer.

        Raises:
            StoreUnavailableError, BrokerUnavailableError: a server does not answer.
        """
        return self._checker.all(check_value(DELAY, "timeout", timeout, "check"))

    def _want(self, *, wake: bool = False) -> int:
        return self.store.want(beat.wanted_ms(self.option("beat_interval")), wake=wake)
