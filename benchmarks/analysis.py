"""Pure functions from records to figures.

`python -m doctest benchmarks/analysis.py` checks the examples.
"""

from __future__ import annotations

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
    events: Sequence[tuple[float, int]], step: float = 0.05, window: float = 1.0
) -> list[tuple[float, int]]:
    """For a chart: (seconds since the first start, units started in the window before), by step.

    >>> sliding([(0.0, 5), (0.9, 7), (1.2, 1)], step=0.5)
    [(0.0, 5), (0.5, 5), (1.0, 7)]
    """
    times = [start for start, _ in events]
    before = [0, *accumulate(units for _, units in events)]

    def units_until(moment: float) -> int:
        return before[bisect_right(times, moment)]

    points = []
    for number in range(int((times[-1] - times[0]) / step) + 1 if times else 0):
        now = times[0] + number * step
        points.append((round(now - times[0], 3), units_until(now) - units_until(now - window)))
    return points
