"""Lanes in memory, for apps that are one process and for tests."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from itertools import count

from ..store.base import Arrival
from .base import Leased, Taken, lane_name

MOST = 500


class MemoryLanes:
    """The lanes of one process, by name: what a broker is to the other intakes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.queues: defaultdict[str, deque[Leased]] = defaultdict(deque)
        self.leases: defaultdict[tuple[str, str], dict[int, Leased]] = defaultdict(dict)
        self.numbers = count()

    def put(self, lane: str, arrival: Arrival, operations: int) -> None:
        """Append a message."""
        with self.lock:
            self.queues[lane].append(Leased(arrival, operations, next(self.numbers)))


class MemoryIntake:
    """Takes messages from `MemoryLanes`."""

    def __init__(self, lanes: MemoryLanes, batcher: str) -> None:
        self._lanes = lanes
        self._batcher = batcher

    def adopt(self, token: str) -> None:
        for batcher, holder in list(self._lanes.leases):
            if holder != token and batcher == self._batcher:
                self._put_back(holder)

    def _put_back(self, holder: str) -> None:
        with self._lanes.lock:
            leases = self._lanes.leases.pop((self._batcher, holder), {})
            for number in sorted(leases, reverse=True):
                one = leases[number]
                self._lanes.queues[self._lane(one.arrival.watcher)].appendleft(one)

    def _lane(self, watcher: str) -> str:
        return lane_name(self._batcher, watcher)

    def take(self, token: str, watchers: Sequence[str]) -> Taken:
        leased: list[Leased] = []
        empty: list[str] = []
        with self._lanes.lock:
            for watcher in watchers:
                queue = self._lanes.queues[self._lane(watcher)]
                while queue and len(leased) < MOST:
                    leased.append(queue.popleft())
                if queue:
                    break
                empty.append(watcher)
            held = self._lanes.leases[self._batcher, token]
            held.update((one.handle, one) for one in leased)
        return Taken(leased, empty)

    def leases(self, token: str) -> str:
        return ""

    def acknowledge(self, token: str, leased: Sequence[Leased]) -> list[str]:
        with self._lanes.lock:
            held = self._lanes.leases.get((self._batcher, token), {})
            # The others another turn has put back. Their ids stay noted, so that they are dropped.
            return [one.arrival.id for one in leased if held.pop(one.handle, None)]

    def keep_alive(self) -> None:
        """Nothing to keep alive."""

    def close(self, token: str) -> None:
        self._put_back(token)
