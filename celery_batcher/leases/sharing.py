"""Decisions about leases, of plain data and time: how many an owner gets, and which.

`Board.round` is what a lease manager with a memory does in one step; ``lua/round.lua`` is the same
on Redis.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..fairness import water_fill


@dataclass(slots=True)
class Lease:
    """A partition's owner, and until when."""

    owner: str
    end_ms: int


@dataclass(slots=True)
class Entry:
    """What an owner asked for, until when that counts, and the number of its last round."""

    wanted: int
    weight: int
    until_ms: int
    round: int


@dataclass(frozen=True, slots=True)
class Round:
    """An owner's round.

    Attributes:
        count: partitions that there are, for this owner.
        last: number of the last round whose answer the caller knows, or -1. What it says of unused
            partitions counts only if that is the owner's last: otherwise another process may
            have begun to use them again, or the request is one that was sent twice.
        unused: milliseconds after which nothing uses a partition.
    """

    owner: str
    wanted: int
    weight: int
    count: int
    lease_ms: int
    last: int = -1
    unused: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """Milliseconds left, by partition; until something may be free, or -1; the round's number."""

    left_ms: Mapping[int, int]
    wait_ms: int
    number: int


class Board:
    """Who owns which partition, and who wants how many."""

    def __init__(self) -> None:
        self.leases: dict[int, Lease] = {}
        self.entries: dict[str, Entry] = {}
        self.lock = threading.Lock()
        self._rounds = 0

    def round(self, now: int, one: Round) -> Answer:
        """Shorten what is unused, then keep and take up to the owner's share.

        Times are whole milliseconds of a clock that rounds down, so leases are said to be one
        shorter, and uses one longer, than they are.
        """
        self._forget(now)
        self._shorten(now, one)
        self._rounds += 1
        self.entries[one.owner] = Entry(one.wanted, one.weight, now + one.lease_ms, self._rounds)
        share = self._share(one)
        kept = self._keep(one, share) + self._take(one)
        for at in kept[:share]:
            self.leases[at] = Lease(one.owner, now + one.lease_ms)
        left = {at: self.leases[at].end_ms - now - 1 for at in kept[:share]}
        return Answer(left, self._wait(now, one, len(left) < share), self._rounds)

    def _forget(self, now: int) -> None:
        """Drop what is over."""
        for at in [at for at, lease in self.leases.items() if lease.end_ms <= now]:
            del self.leases[at]
        for owner in [owner for owner, entry in self.entries.items() if entry.until_ms <= now]:
            del self.entries[owner]

    def _shorten(self, now: int, one: Round) -> None:
        entry = self.entries.get(one.owner)
        if entry is None or entry.round != one.last:
            return
        for at, ms in one.unused.items():
            lease = self.leases.get(at)
            if lease is not None and lease.owner == one.owner:
                lease.end_ms = min(lease.end_ms, now + ms + 1 if ms else now)
        self._forget(now)

    def _share(self, one: Round) -> int:
        owners = sorted(self.entries)
        entries = [self.entries[owner] for owner in owners]
        wanted = [min(entry.wanted, one.count) for entry in entries]
        shares = water_fill(wanted, [entry.weight for entry in entries], one.count)
        return shares[owners.index(one.owner)]

    def _keep(self, one: Round, share: int) -> list[int]:
        """Its own partitions, those in use first."""
        own = [at for at in self.leases if self.leases[at].owner == one.owner and at < one.count]
        return sorted(own, key=lambda at: (at in one.unused, at))

    def _take(self, one: Round) -> list[int]:
        """Partitions that nobody owns."""
        return [at for at in range(one.count) if at not in self.leases]

    def _wait(self, now: int, one: Round, lacking: bool) -> int:
        ends = [lease.end_ms for lease in self.leases.values() if lease.owner != one.owner]
        return min(ends) - now if lacking and ends else -1
