"""The protocol of lease managers: who may use which partition of a shared capacity, until when.

A partition is leased to one owner, a fleet, for a time. The owner uses it for what will have ended
before the lease has: it starts a hold only while the lease lasts at least as long as the hold. So
the next owner may use the partition from the moment its own lease begins.

A lease is never taken away and never shortened behind its owner's back, because the owner may be
starting a hold at that very moment. An owner that has more than its share is told which leases it
keeps; it stops using the others, and in a later round it says how long they may still be in use
(`Demand.unused`). Only that shortens a lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ..errors import PartitionsOutOfRangeError
from ..events import Listener

MAX_PARTITIONS = 500


@dataclass(frozen=True, slots=True)
class Demand:
    """What an owner wants, and what it has ceased to use.

    Attributes:
        partitions: how many it wants in all; with 0 it wants to give everything back.
        weight: how much of what is scarce it gets, against the weights of others.
        hold: seconds for which a lease must last to be of use: window and grace.
        unused: partitions that an earlier answer left out, and of which everything that uses the
            leases has been told: seconds after which nothing uses them any more, an upper bound.
        turn: names the time during which the caller alone acts for the owner. With another one
            than before the manager forgets what it knows of the owner: another process may have
            acted meanwhile.
    """

    partitions: int
    weight: int = 1
    hold: float = 0.0
    unused: Mapping[int, float] = field(default_factory=dict)
    turn: str = ""


@dataclass(frozen=True, slots=True)
class Leases:
    """The answer to a round.

    Attributes:
        left: the partitions to use, and seconds that their leases last, counted from before the
            round began: a slow answer never lengthens a lease. One that the owner held and that
            is not here is to be given back.
        wait: seconds after which something that the owner is due may be free; None: not known.
        guarded: the store was restarted and may have lost leases. Nothing is leased until every
            lease that it may have lost is over; what the owner holds, it holds until it ends.
    """

    left: Mapping[int, float]
    wait: float | None = None
    guarded: bool = False


@runtime_checkable
class LeaseManager(Protocol):
    """Leases partitions of one shared capacity, each to one owner at a time.

    Attributes:
        lease_time: seconds for which partitions are leased.
        fair: whether owners that want more than there is get shares by weight, max-min fair. If
            not, they compete.
    """

    lease_time: float
    fair: bool

    def provision(self, partitions: int) -> None:
        """Create what is needed for so many partitions; what is there stays as it is.

        Raises:
            PartitionsOutOfRangeError: more than 500, or fewer than 0.
            LeaseStoreUnavailableError: the store does not answer.
            ConfigurationError: the store refuses; the message says what to do.
        """

    def lease(self, owner: str, demand: Demand) -> Leases:
        """One round: renew what is wanted, take more, give back the rest.

        Raises:
            LeaseStoreUnavailableError: the store does not answer. What is leased stays so until
                it ends.
            ConfigurationError: the store refuses; the message says what to do.
            ImproperOrderError: nothing was provisioned.
        """

    def release(self, owner: str) -> None:
        """Give everything back now, for a fleet that ends.

        Only when every hold of the fleet has ended: the partitions are others' at once.

        Raises:
            LeaseStoreUnavailableError: the store does not answer; the leases end by themselves.
        """

    def raise_events_to(self, listener: Listener) -> None:
        """Tell a listener what happens from now on, instead of the one before."""


def check_partitions(partitions: int, capacity: int | None = None) -> int:
    """A number of partitions that is allowed.

    Raises:
        PartitionsOutOfRangeError: it is not; with the smallest factor for the capacity.
    """
    if 0 <= partitions <= MAX_PARTITIONS:
        return partitions
    whole = partitions if capacity is None else capacity
    factor = max(1, -(-whole // MAX_PARTITIONS))
    advice = f": use a factor of at least {factor}" if partitions > 0 else ""
    raise PartitionsOutOfRangeError(
        f"{partitions} partitions, but there are 0 to {MAX_PARTITIONS}{advice}",
        partitions=partitions,
        factor=factor,
    )


def give_everything_back(manager: LeaseManager, owner: str) -> None:
    """Two rounds: one to be the last that acted for the owner, one to say that nothing is used."""
    manager.lease(owner, Demand(0, turn="release"))
    unused = dict.fromkeys(range(MAX_PARTITIONS), 0.0)
    manager.lease(owner, Demand(0, turn="release", unused=unused))


def no_listener(event: str, val: int, msg: str, metadata: object) -> None:
    """Hears nothing."""
