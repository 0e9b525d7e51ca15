"""Who is served next, and who gets how much.

**Whose turn it is, by cost: start-time fair queueing** (`FairRing`). Each member has a virtual
time, the cost it was served divided by its weight. The member that is furthest behind is served
next, and moves ahead by what it took. One that joins (again) starts at the time of the member
served last, so that nobody saves up a claim while idle. Over any stretch in which two members have
something to release, what they were served differs by at most one batch each, whatever the costs,
and a dear operation waits for its turn like a cheap one.

It is deficit round robin without the quantum: there is no round to go through, so a batch need
not be cut to a deficit, and an operation dearer than a quantum costs no extra rounds.

Source: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.

**How much each gets of something that is scarce: max-min fairness** (`water_fill`). Everyone's
share rises like water in vessels as wide as their weights, until it meets their demand or nothing
is left. So nobody can get more without taking from one who has, for its weight, no more.

Source: D. Bertsekas, R. Gallager, "Data Networks", 2nd ed. 1992, section 6.5.2.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


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

    def members(self) -> list[str]:
        """All members, the next first."""
        return [member for _, member in self.tags()]

    def tags(self) -> list[tuple[float, str]]:
        """The times of all members, and these, the next first."""
        return sorted((tag, member) for member, tag in self._tags.items())

    def serve(self, member: str, tag: float, weight: float) -> None:
        """Note that a member whose time was ``tag`` took ``weight``."""
        self.time = tag
        self._put(member, tag + weight)

    def pass_over(self, member: str, tag: float) -> None:
        """Take out a member whose time was ``tag``; the ring goes on as if it had been served."""
        self.time = tag
        self.leave(member)

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


def water_fill(
    demands: Sequence[int],
    weights: Sequence[int],
    total: int,
    floors: Sequence[int] | None = None,
) -> list[int]:
    """Whole shares of a total, max-min fair by weight.

    No share is above its demand, and their sum is the total, or that of the demands when it is
    less. Each share is the exact one, rounded: down, or up where the fractions are largest; of
    equal fractions, the first.

    Args:
        demands: the most that each wants, from 0.
        weights: at least 1 each.
        total: what there is, from 0.
        floors: what each has before anyone rises above its floor, as far as it wants it. Floors
            that are together above the total share it as demands do.
    """
    lows = [min(pair) for pair in zip(floors or [0] * len(demands), demands, strict=True)]
    if sum(demands) <= total:
        return list(demands)
    if sum(lows) > total:
        return water_fill(lows, weights, total)
    shares = list(lows)
    rising, rest = set(range(len(demands))), total
    while rising:
        width = sum(weights[at] for at in rising)
        # Everything times `width`, so that it stays whole: the level is rest / width.
        wet = {
            at: max(lows[at] * width, min(rest * weights[at], demands[at] * width)) for at in rising
        }
        excess = sum(wet.values()) - rest * width
        if excess == 0:
            return _rounded(shares, wet, width, rest)
        fixed = {at for at in rising if (wet[at] - rest * weights[at]) * excess > 0}
        for at in fixed:
            shares[at] = wet[at] // width
        rising -= fixed
        rest -= sum(shares[at] for at in fixed)
    return shares


def _rounded(shares: list[int], wet: Mapping[int, int], width: int, rest: int) -> list[int]:
    """The shares, with those of `wet` in whole numbers whose sum is `rest`."""
    for at, exact in wet.items():
        shares[at] = exact // width
    left = rest - sum(shares[at] for at in wet)
    for at in sorted(wet, key=lambda at: (-(wet[at] % width), at))[:left]:
        shares[at] += 1
    return shares
