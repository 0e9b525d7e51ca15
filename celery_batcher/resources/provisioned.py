"""A fixed capacity, shared by every process that names it."""

from __future__ import annotations

import math
from datetime import timedelta

from ..config import check_name, seconds
from ..errors import ConfigurationError
from ..operation import MAX_COST


class ProvisionedResource:
    """A capacity per window that a datastore or an API was provisioned with.

    In every window, measured where handlers start, the cost of started operations is at most the
    capacity: over all processes, workers and batchers that name the resource on one store.

    Args:
        capacity: cost per window, an integer from 0 to 2**53 - 1. With 0 only operations of cost
            0 run.
        name: the resource's name in the store; by default that of the batcher that uses it.
        window: seconds.

    Raises:
        ConfigurationError: a capacity or window that is none.

    Example::

        Batcher("cosmos", app=app, rate_limiter=ProvisionedResource(20_000))

    Its weakness: it counts costs that producers state. An operation that costs more than was said
    takes capacity from others that nobody sees.
    """

    def __init__(
        self, capacity: int, *, name: str | None = None, window: float | timedelta = 1.0
    ) -> None:
        self.name = None if name is None else check_name(name, "resource")
        self._capacity = _checked(capacity)
        try:
            self.window = seconds(window)
        except ValueError as exc:
            raise ConfigurationError(f"window={window!r}, but it is seconds above 0") from exc

    def __repr__(self) -> str:
        return f"ProvisionedResource({self._capacity}, name={self.name!r}, window={self.window})"

    def capacity(self) -> int:
        """The capacity per window, as the code has it."""
        return self._capacity

    def max_capacity(self) -> int:
        """The most that an operation may cost: the capacity as the code has it."""
        return self._capacity


def _checked(capacity: object) -> int:
    if isinstance(capacity, float) and (not math.isfinite(capacity) or capacity % 1):
        raise ConfigurationError(f"capacity {capacity!r}: capacities are integers")
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise ConfigurationError(f"capacity {capacity!r}: capacities are integers, round it down")
    if not 0 <= capacity <= MAX_COST:
        raise ConfigurationError(f"capacity {capacity} is outside of 0 to {MAX_COST} (2**53 - 1)")
    return capacity
