"""Whose turn it is, by cost: start-time fair queueing.

Each member has a virtual time, the cost it was served divided by its weight. The member that is
furthest behind is served next, and moves ahead by what it took. One that joins (again) starts at
the time of the member served last, so that nobody saves up a claim while idle. Over any stretch in
which two members have something to release, what they were served differs by at most one batch
each, whatever the costs, and a dear operation waits for its turn like a cheap one.

It is deficit round robin without the quantum: there is no round to go through, so a batch need
not be cut to a deficit, and an operation dearer than a quantum costs no extra rounds.

Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
"""

from __future__ import annotations

import heapq


def weigh(cost: int) -> int:
    """What an operation counts: its cost, and 1 when that is 0."""
    return cost or 1


class FairRing:
    """Members by virtual time; equal times by name.

    The Redis store keeps the same in sorted sets (``ring`` and ``k:``).
    """

    def __init__(self) -> None:
        self.time = 0.0
        self._tags: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._tags)

    def __contains__(self, member: str) -> bool:
        return member in self._tags

    def join(self, member: str, tag: float = 0.0) -> None:
        """Let a member in at its own time or the ring's, the later; a member stays as it is."""
        if member not in self._tags:
            self._put(member, max(tag, self.time))

    def first(self) -> tuple[str, float] | None:
        """The member furthest behind, and its time."""
        while self._heap:
            tag, member = self._heap[0]
            if self._tags.get(member) == tag:
                return member, max(tag, self.time)
            heapq.heappop(self._heap)
        return None

    def serve(self, member: str, tag: float, weight: float) -> None:
        """Note that a member whose time was ``tag`` took ``weight``."""
        self.time = tag
        self._put(member, tag + weight)

    def leave(self, member: str) -> None:
        """Take a member out."""
        self._tags.pop(member, None)

    def clear(self) -> None:
        """Take all members out; the ring's time stays."""
        self._tags.clear()
        self._heap.clear()

    def _put(self, member: str, tag: float) -> None:
        self._tags[member] = tag
        heapq.heappush(self._heap, (tag, member))
