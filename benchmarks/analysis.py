"""Pure functions from records to figures.

`python -m doctest benchmarks/analysis.py` checks the examples.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate


def worst_window(events: Sequence[tuple[float, int]], window: float = 1.0) -> int:
    """The most units that started within any `window` seconds, however it is placed.

    Args:
        events: (start, units), sorted by start. Starts a whole window apart share no window.

    >>> worst_window([(0.0, 6), (0.5, 3), (1.0, 5)])
    9
    >>> worst_window([(0.0, 6), (0.5, 3), (0.999, 5)])
    14
    >>> worst_window([])
    0
    """
    worst = inside = first = 0
    for start, units in events:
        inside += units
        while start - events[first][0] >= window:
            inside -= events[first][1]
            first += 1
        worst = max(worst, inside)
    return worst


def steady_rate(events: Sequence[tuple[float, int]], begin: float, seconds: float) -> float:
    """Units per second over `seconds`, averaged over placements.

    One placement would depend on which batches fall across its ends; all that begin at a start
    in the second after `begin` are taken.

    >>> steady_rate([(n / 10, 100) for n in range(100)], begin=1.0, seconds=5.0)
    1000.0
    """
    times = [start for start, _ in events]
    before = [0, *accumulate(units for _, units in events)]
    placements = range(bisect_left(times, begin), bisect_left(times, begin + 1.0))
    if not placements:
        return 0.0
    units = [before[bisect_left(times, times[i] + seconds)] - before[i] for i in placements]
    return sum(units) / len(units) / seconds


def units_between(events: Sequence[tuple[float, int]], begin: float, end: float) -> int:
    """Units that started in that time.

    >>> units_between([(0.0, 6), (0.5, 3), (1.0, 5)], 0.5, 1.0)
    3
    """
    return sum(units for start, units in events if begin <= start < end)


def reached(
    events: Sequence[tuple[float, int]], since: float, units: float, window: float = 1.0
) -> float:
    """Seconds from `since` until that many units had started in a window that began after it.

    >>> reached([(0.0, 6), (0.5, 3), (1.0, 3), (1.25, 3), (2.0, 9)], since=0.25, units=9)
    1.0
    """
    inside: list[tuple[float, int]] = []
    for start, more in events:
        if start >= since:
            inside = [event for event in inside if start - event[0] < window] + [(start, more)]
            if sum(had for _, had in inside) >= units:
                return start - since
    return math.inf


def jain(shares: Sequence[float]) -> float:
    """How equal shares are: 1 when all are, 1/n when one has everything (Jain, Chiu, Hawe 1984).

    >>> jain([1.0, 1.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else float("nan")


def fillable(capacity: int, cost: int) -> int:
    """What whole operations can use of a capacity.

    >>> fillable(10_000, 900)
    9900
    """
    return capacity // cost * cost


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed (nearest rank).

    >>> percentile([1.0, 2.0, 3.0, 4.0], 0.5), percentile([1.0, 2.0, 3.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    if not ordered:
        return float("nan")
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, int(rank) - 1)]


def sliding(
    events: Sequence[tuple[float, int]],
    step: float = 0.05,
    window: float = 1.0,
    since: float | None = None,
) -> list[tuple[float, int]]:
    """For a chart: (seconds since the first start, units started in the window before), by step.

    Args:
        since: the moment that is 0 instead.

    >>> sliding([(0.0, 5), (0.9, 7), (1.2, 1)], step=0.5)
    [(0.0, 5), (0.5, 5), (1.0, 7)]
    """
    times = [start for start, _ in events]
    before = [0, *accumulate(units for _, units in events)]

    def units_until(moment: float) -> int:
        return before[bisect_right(times, moment)]

    if not times:
        return []
    first = times[0] if since is None else since
    points = []
    for number in range(int((times[-1] - first) / step) + 1):
        now = first + number * step
        points.append((round(now - first, 3), units_until(now) - units_until(now - window)))
    return points
