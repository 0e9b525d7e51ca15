"""Leases in the memory of one process: for tests, and for several batchers in one process."""

from __future__ import annotations

from collections.abc import Mapping

from ..clock import Clock, SystemClock
from ..config import checked_seconds, milliseconds
from ..errors import ImproperOrderError
from ..events import Listener
from .base import Demand, Leases, check_partitions, give_everything_back, no_listener
from .sharing import Board, Round


class MemoryLeaseManager:
    """Leases partitions to owners in this process, in shares that are max-min fair by weight.

    Args:
        lease_time: seconds.
        clock: the time; tests move one by hand.
        board: who owns what; by default one of its own. Managers with the same board are as
            several processes at one store.
    """

    fair = True

    def __init__(
        self, *, lease_time: float = 4.0, clock: Clock | None = None, board: Board | None = None
    ) -> None:
        self.lease_time = checked_seconds(lease_time, "lease_time")
        self._clock = clock or SystemClock()
        self._board = board or Board()
        self._count: int | None = None
        self._last: dict[str, int] = {}
        self._emit: Listener = no_listener

    def provision(self, partitions: int) -> None:
        self._count = check_partitions(partitions)

    def lease(self, owner: str, demand: Demand) -> Leases:
        with self._board.lock:
            last = self._last.get(owner, -1)
            one = round_of(owner, demand, self._count, self.lease_time, last)
            answer = self._board.round(self._clock.now_ms(), one)
            self._last[owner] = answer.number
        return leases_of(answer.left_ms, answer.wait_ms)

    def release(self, owner: str) -> None:
        give_everything_back(self, owner)

    def raise_events_to(self, listener: Listener) -> None:
        self._emit = listener


def round_of(owner: str, demand: Demand, count: int | None, lease_time: float, last: int) -> Round:
    """A round in whole milliseconds: uses rounded up."""
    if count is None:
        raise ImproperOrderError("nothing was provisioned: call provision(partitions) first")
    return Round(
        owner,
        min(demand.partitions, count),
        demand.weight,
        count,
        milliseconds(lease_time),
        last,
        {at: max(0, milliseconds(left)) for at, left in demand.unused.items()},
    )


def leases_of(left_ms: Mapping[int, int], wait_ms: int) -> Leases:
    """An answer in seconds."""
    left = {at: ms / 1000 for at, ms in left_ms.items()}
    return Leases(left, None if wait_ms < 0 else wait_ms / 1000)
