"""What a fleet holds of a shared capacity, by the clock of one process."""

from __future__ import annotations

from collections.abc import Mapping


class Holding:
    """Leases from the answer that gives them to the moment at which nothing uses them any more.

    Attributes:
        hold: seconds for which a lease must last to be of use.
        ends: partitions to use, and the ends of their leases; None before the first answer, when
            those that another process applied may still count.
        again: they are to be applied again, as what they are worth has changed.
    """

    def __init__(self, hold: float) -> None:
        self.hold = hold
        self.ends: dict[int, float] | None = None
        self.again = False
        self._applied: dict[int, float] | None = None
        self._idle: dict[int, float] = {}

    def __bool__(self) -> bool:
        return bool(self.ends or self._applied or self._idle)

    def usable(self, now: float) -> list[int]:
        """The partitions that are leased for long enough."""
        return [at for at, end in (self.ends or {}).items() if end >= now + self.hold]

    def take(self, began: float, left: Mapping[int, float]) -> tuple[list[int], list[int]]:
        """Note an answer to a round that began then; which partitions are new, which are gone."""
        before = self.ends or {}
        self.ends = {at: began + seconds for at, seconds in left.items()}
        for at in self.ends:
            self._idle.pop(at, None)
        return sorted(self.ends.keys() - before), sorted(before.keys() - self.ends)

    def to_apply(self) -> dict[int, float] | None:
        """The leases, if they are others than those in force."""
        if self.ends is None or (self.ends == self._applied and not self.again):
            return None
        return dict(self.ends)

    def applied(self, ends: dict[int, float], now: float) -> bool:
        """Note that these are in force, and no others; whether any went out of use.

        What went out of use may have been claimed until now, and is in use for a hold.
        """
        gone = (self._applied or {}).keys() - ends
        for at in gone:
            self._idle[at] = now + self.hold
        self._applied, self.again = ends, False
        return bool(gone)

    def stated(self, unused: Mapping[int, float]) -> None:
        """Note that a lease manager was told; what had no use left need not be said again."""
        for at in [at for at, left in unused.items() if left == 0]:
            self._idle.pop(at, None)

    def unused(self, now: float) -> dict[int, float]:
        """Seconds after which nothing uses a partition that went out of use."""
        return {at: max(0.0, end - now) for at, end in self._idle.items()}

    def drop_ended(self, now: float) -> list[int]:
        """Forget leases that are over; return those that were to be used."""
        over = [at for at, end in (self.ends or {}).items() if end <= now]
        if over:
            self.ends = _without(self.ends, over)
            self._applied = _without(self._applied, over)
        return over


def _without(ends: Mapping[int, float] | None, over: list[int]) -> dict[int, float]:
    return {at: end for at, end in (ends or {}).items() if at not in over}
