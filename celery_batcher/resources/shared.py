"""A capacity that fleets share which have no store in common."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from ..clock import Clock, SystemClock
from ..config import check_name, checked_seconds, milliseconds
from ..costs import PLAIN
from ..errors import ConfigurationError, LeaseStoreUnavailableError
from ..events import Listener
from ..leases.base import Demand, LeaseManager, check_partitions, no_listener
from ..store.options import Limit, ResourceOptions
from .base import check_sharing, checked_capacity
from .holding import Holding

if TYPE_CHECKING:
    from ..batcher import Batcher

logger = logging.getLogger("celery_batcher")

Apply = Callable[[Mapping[int, float]], None]

_LONGEST_BREAK = 5.0


class SharedResource:
    """A capacity per window that several fleets divide among themselves, as each needs it.

    In every window, measured where handlers start, the cost of operations started by all fleets
    together is at most the shared capacity and the sum of the reserved ones. The shared capacity
    is cut in partitions of ``factor``; a lease manager leases them to fleets. A fleet asks for as
    many as its outstanding work needs, and gives back what it needs no more.

    Fleets whose processes use one store need none of this: they share a `ProvisionedResource`.

    Args:
        shared_capacity: cost per window, for all fleets together.
        reserved_capacity: cost per window that this fleet always has, on top; not shared.
        factor: capacity per partition. There may be 500 partitions at most.
        lease_manager: of all fleets; they give it the same store and name.
        max_interval: seconds; rounds with the lease manager come at random times up to this
            apart.
        name: the resource's name in the store; by default that of the batcher that uses it.
        window: seconds.
        clock: measures leases.

    Raises:
        ConfigurationError: a figure that is none; a shared capacity without a lease manager;
            leases that are too short for the window.
        PartitionsOutOfRangeError: the shared capacity makes more than 500 partitions.

    Example::

        leases = RedisLeaseManager("redis://leases:6379/0", name="cosmos")
        SharedResource(20_000, reserved_capacity=500, factor=100, lease_manager=leases)

    Its weakness: capacity that one fleet gives back is of use to another only after what uses
    it has ended, a window later; and while the lease manager is away nobody gets more than what it
    reserved, once leases have ended.
    """

    dimensions: tuple[str, ...] = PLAIN

    def __init__(
        self,
        shared_capacity: int,
        *,
        reserved_capacity: int = 0,
        factor: int = 1,
        lease_manager: LeaseManager | None = None,
        max_interval: float | timedelta = 0.5,
        name: str | None = None,
        window: float | timedelta = 1.0,
        clock: Clock | None = None,
    ) -> None:
        self.name = None if name is None else check_name(name, "resource")
        self.window = checked_seconds(window, "window")
        self._factor = checked_capacity(factor, "factor")
        if self._factor == 0:
            raise ConfigurationError("factor 0: a partition must be worth something, at least 1")
        self._max_interval = checked_seconds(max_interval, "max_interval")
        if lease_manager is not None and not isinstance(lease_manager, LeaseManager):
            raise ConfigurationError(
                f"lease_manager={lease_manager!r}, but it is one: RedisLeaseManager(...)"
            )
        self._manager = lease_manager
        self._check_lease_time()
        self._reserved = checked_capacity(reserved_capacity, "reserved_capacity")
        self._shared, self._partitions = self._checked_shared(shared_capacity)
        self._clock = clock or SystemClock()
        self._emit: Listener = no_listener
        self._lock = threading.Lock()
        self._holding = Holding(self.window)
        self._wanted = self._asked = 0
        self._provisioned: int | None = None
        self._next = float("-inf")
        self._break = 0.0
        self._told: int | None = None
        self._turn = ""
        self._batcher: Batcher | None = None

    def __repr__(self) -> str:
        return (
            f"SharedResource({self._shared}, reserved_capacity={self._reserved}, "
            f"factor={self._factor}, lease_manager={self._manager!r}, name={self.name!r})"
        )

    # What a batcher must know

    def limits(self) -> tuple[Limit, ...]:
        """One limit: all that the fleet could ever have."""
        return (Limit(1, self.max_capacity(), milliseconds(self.window)),)

    def options(self) -> ResourceOptions:
        """What else the store must know: what needs a lease, and what does not."""
        return ResourceOptions(factor=self._factor, reserved=self._reserved)

    def bind(self, batcher: Batcher) -> None:
        """A batcher uses it; its limiter calls `give_me` and `step`.

        Raises:
            ConfigurationError: another one does, and without a name they would not share it.
        """
        check_sharing(self, self._batcher, batcher)
        self._batcher = batcher

    # What there is

    @property
    def clock(self) -> Clock:
        """What measures leases."""
        return self._clock

    @property
    def factor(self) -> int:
        """Capacity per partition."""
        return self._factor

    @property
    def partitions(self) -> int:
        """How many partitions there are; the last one may be worth less than the factor."""
        return self._partitions

    @property
    def reserved_capacity(self) -> int:
        """Capacity of this fleet that is not shared."""
        return self._reserved

    def capacity(self) -> int:
        """The capacity per window that this fleet has now: reserved, and leased for long enough."""
        usable = self._holding.usable(self._clock.monotonic())
        return self._reserved + sum(map(self.worth, usable))

    def worth(self, partition: int) -> int:
        """The capacity of a partition: the factor, or what is left over for the last one."""
        return max(0, min(self._factor, self._shared - partition * self._factor))

    def max_capacity(self) -> int:
        """The most that an operation may cost: all that is shared, and what is reserved."""
        return self._shared + self._reserved

    def give_me(self, target: int) -> None:
        """Ask for capacity: the cost of all outstanding work of the fleet."""
        checked_capacity(target, "target")
        partitions = -(-max(0, target - self._reserved) // self._factor)
        self._wanted = partitions
        self._emit("target", target, "", None)

    def set_shared_capacity(self, capacity: int) -> None:
        """Change the shared capacity; every fleet that shares it has to be told.

        Raises:
            ConfigurationError: it is no capacity, or there is no lease manager.
            PartitionsOutOfRangeError: it makes more than 500 partitions.
            StoreUnavailableError: the store does not answer; nothing was changed here.
        """
        self._checked_shared(capacity)
        self._write(capacity, self._reserved)
        self._change(capacity, self._reserved)

    def set_reserved_capacity(self, capacity: int) -> None:
        """Change what this fleet always has.

        Raises:
            ConfigurationError: it is no capacity.
            StoreUnavailableError: the store does not answer; nothing was changed here.
        """
        reserved = checked_capacity(capacity, "reserved_capacity")
        self._write(self._shared, reserved)
        self._change(self._shared, reserved)

    def adopt(self, capacity: int, reserved: int) -> None:
        """Go by the figures of the fleet's store: all of the capacity, and what of it is reserved.

        Raises:
            PartitionsOutOfRangeError: with the factor of this process they make too many.
        """
        if (capacity - reserved, reserved) != (self._shared, self._reserved):
            self._change(max(0, capacity - reserved), reserved)

    def _change(self, shared: int, reserved: int) -> None:
        self._shared, self._partitions = self._checked_shared(shared)
        self._reserved = reserved
        self._next = float("-inf")
        self._holding.again = True

    def _write(self, shared: int, reserved: int) -> None:
        """Let the whole fleet go by these figures."""
        if self._batcher is not None:
            self._batcher.set_capacities([shared + reserved], reserved)

    def raise_events_to(self, listener: Listener) -> None:
        """Tell a listener what happens from now on, instead of the one before."""
        self._emit = listener
        if self._manager is not None:
            self._manager.raise_events_to(listener)

    # Rounds with the lease manager

    def step(self, owner: str, apply: Apply, *, turn: str, hold: float, weight: int = 1) -> None:
        """Do a round with the lease manager if one is due; called often, by one process at a time.

        Errors of the lease manager do not come out: listeners hear ``error`` once, what is leased
        counts until it ends, and rounds are tried again, at first soon.

        Args:
            owner: the fleet's id, the same in each of its processes.
            apply: puts leases in force, wherever capacity is claimed. It is given the partitions
                to use and the ends of their leases, on this resource's clock; they replace those
                before. A partition has the capacity that `worth` says, and to all of them comes
                what is reserved. When it returns, nothing is claimed by older ones. It is called
                when leases or figures have changed, and after a turn's first answer. What it
                raises comes out of here, and the same leases are applied at the next step. It has
                to raise when the turn is over, so that older leases never replace newer ones.
            turn: a token of the time for which the caller alone acts for the fleet; another one
                when somebody else may have acted in between.
            hold: seconds for which a lease must last to be of use: window and grace.
            weight: of this fleet, where there is less than all want.
        """
        manager = self._manager
        with self._lock:
            if turn != self._turn:
                self._turn, self._holding = turn, Holding(hold)
                self._next = float("-inf")
                if manager is None:
                    self._holding.ends = {}
            self._holding.hold = hold
            if manager is not None and self._due():
                self._round(manager, owner, weight)
            if self._put_in_force(apply) and manager is not None and not self._break:
                # What was left out is unused from now on, and that is worth saying at once.
                self._round(manager, owner, weight)
                self._put_in_force(apply)
            for at in self._holding.drop_ended(self._clock.monotonic()):
                self._emit("released", at, "", None)
            self._tell_capacity()

    def release(self, owner: str) -> None:
        """Give all leases back now; only when every hold of the fleet has ended.

        Raises:
            LeaseStoreUnavailableError: the lease manager's store does not answer; the leases end
                by themselves.
        """
        with self._lock:
            if self._manager is not None and self._provisioned is not None:
                self._manager.release(owner)
            self._wanted = 0
            self._holding = Holding(self.window)
        self._tell_capacity()

    def provision(self) -> None:
        """Create what the lease manager needs; `step` does it by itself when it was not done.

        Raises:
            LeaseStoreUnavailableError: the lease manager's store does not answer.
            ConfigurationError: it refuses; the message says what to do.
        """
        partitions = self._partitions
        if self._manager is not None and self._provisioned != partitions:
            self._emit("provision-start", partitions, "", None)
            self._manager.provision(partitions)
            self._provisioned = partitions
            self._emit("provision-done", partitions, "", None)

    def _due(self) -> bool:
        now, wanted = self._clock.monotonic(), min(self._wanted, self._partitions)
        idle = not (wanted or self._asked or self._holding)
        if now >= self._next:
            return not idle
        # Everything it asked for it got, and now it asks for more: no reason to wait.
        return not self._break and wanted > self._asked == len(self._holding.ends or ())

    def _round(self, manager: LeaseManager, owner: str, weight: int) -> None:
        try:
            self.provision()
            began = self._clock.monotonic()
            wanted = min(self._wanted, self._partitions)
            unused = self._holding.unused(began)
            demand = Demand(wanted, weight, self._holding.hold, unused, self._turn)
            leases = manager.lease(owner, demand)
        except (LeaseStoreUnavailableError, ConfigurationError) as exc:
            self._note_outage(exc)
            return
        if self._break:
            logger.info("the lease manager answers again")
        self._break, self._asked = 0.0, wanted
        wait = random.uniform(0, self._max_interval)
        if leases.wait is not None:
            wait = min(wait, leases.wait)
        self._next = self._clock.monotonic() + wait
        self._holding.stated(unused)
        if not leases.guarded:
            taken, left = self._holding.take(began, leases.left)
            for event, indexes in (("allocated", taken), ("released", left)):
                for at in indexes:
                    self._emit(event, at, "", None)

    def _put_in_force(self, apply: Apply) -> bool:
        """Apply what is new; whether something is unused since."""
        ends = self._holding.to_apply()
        if ends is None:
            return False
        apply(ends)
        return self._holding.applied(ends, self._clock.monotonic())

    def _note_outage(self, exc: Exception) -> None:
        if not self._break:
            logger.error("no leases: %s", exc)
            self._emit("error", 1, str(exc), exc)
        self._provisioned = None  # what is missing is created when the store is back
        self._break = min(_LONGEST_BREAK, max(self._max_interval, 2 * self._break))
        self._next = self._clock.monotonic() + random.uniform(0.5, 1) * self._break

    def _tell_capacity(self) -> None:
        if (capacity := self.capacity()) != self._told:
            self._told = capacity
            self._emit("capacity", capacity, "", None)

    # Checks

    def _checked_shared(self, capacity: int) -> tuple[int, int]:
        capacity = checked_capacity(capacity, "shared_capacity")
        if capacity and self._manager is None:
            raise ConfigurationError(
                f"shared_capacity {capacity} without a lease manager: pass lease_manager="
                "RedisLeaseManager(...), or use ProvisionedResource when all processes have one "
                "store"
            )
        return capacity, check_partitions(-(-capacity // self._factor), capacity)

    def _check_lease_time(self) -> None:
        if self._manager is None:
            return
        least = self.window + 2 * self._max_interval
        if self._manager.lease_time < least:
            raise ConfigurationError(
                f"leases of {self._manager.lease_time:g} s are too short for a window of "
                f"{self.window:g} s and a max_interval of {self._max_interval:g} s: lease_time="
                f"{least + self.window:g} would do"
            )
