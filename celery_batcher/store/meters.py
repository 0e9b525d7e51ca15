"""What a store counts for ever, its newest flush and newest batches, and how it keeps them.

A watcher's counters are numbers in fixed places, so that one command adds to several; new ones get
places behind the others. ``lua/parts/meters.lua`` knows the same places and bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Place(IntEnum):
    """Where a counter of a watcher is."""

    ENQUEUED = 0
    DONE = 1
    RETRIED = 2
    HALVED = 3
    GIVEN_BACK = 4
    DEAD = 5
    COST = 6
    SIZE = 7
    CAPACITY = 8
    INTERVAL = 9
    SINGLE = 10
    BISECT = 11
    EXPIRED = 12
    ABANDONED = 13
    RECALLED = 14
    REDRIVEN = 15


OUTCOMES = (Place.DONE, Place.RETRIED, Place.HALVED, Place.GIVEN_BACK, Place.DEAD)
TRIGGERS = (Place.SIZE, Place.CAPACITY, Place.INTERVAL, Place.SINGLE, Place.BISECT)
ENDS = {"expired": Place.EXPIRED, "abandoned": Place.ABANDONED}
_PLACE_OF = {
    "d": Place.DONE,
    "r": Place.RETRIED,
    "a": Place.RETRIED,
    "h": Place.HALVED,
    "g": Place.GIVEN_BACK,
    "x": Place.DEAD,
}


def place_of(outcome: str) -> Place:
    """Where operations with an outcome (a character of `Settlement`) are counted."""
    return _PLACE_OF[outcome]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram's places: one for each upper bound, one for what is more, one for the sum."""

    first: int
    bounds: tuple[int, ...]

    @property
    def sum(self) -> int:
        return self.first + len(self.bounds) + 1

    def place(self, value: int) -> int:
        """Where a value is counted."""
        return self.first + bisect_left(self.bounds, value)


SIZES = Buckets(16, (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
AGES_MS = Buckets(
    28, (100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 1_800_000, 7_200_000)
)
DURATIONS_MS = Buckets(
    42, (10, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000)
)
PLACES = DURATIONS_MS.sum + 1
RECENT = 100
"""Batches that are shown, and kept when they have ended."""


@dataclass(frozen=True, slots=True)
class FlushRecord:
    """A flush: when it ended, what it released, and why no more."""

    at_ms: int
    batches: int
    operations: int
    reason: str


@dataclass(frozen=True, slots=True)
class Readings:
    """All counters since ever: flushes by result, and by watcher the numbers by `Place`."""

    flushes: Mapping[str, int]
    watchers: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch from its release to its end; times are None while they are to come.

    ``state``: ``released``, ``running``, ``settled``, ``expired`` (its deadline passed),
    ``abandoned`` (its worker ended or was lost) or ``recalled`` (nobody had claimed it).
    """

    id: str
    watcher: str
    operations: int
    cost: int
    trigger: str
    state: str
    oldest_ms: int
    released_ms: int
    started_ms: int | None
    ended_ms: int | None
    outcomes: tuple[int, ...]
    """How many of its operations were done, retried, halved, given back, dead."""


def newest(records: Sequence[BatchRecord], most: int) -> list[BatchRecord]:
    """Those that were released last, the newest first."""
    return sorted(records, key=lambda one: (one.released_ms, one.id), reverse=True)[:most]
