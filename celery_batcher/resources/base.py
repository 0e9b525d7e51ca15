"""The protocol of a capacity limit, and the check of its figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..costs import MAX_COST, Cost
from ..errors import ConfigurationError
from ..store.base import Limit, ResourceOptions

if TYPE_CHECKING:
    from ..batcher import Batcher


@runtime_checkable
class Resource(Protocol):
    """A capacity that operations share (what go-batcher calls a rate limiter).

    Attributes:
        name: under which batchers share it in a store; None for the name of its batcher.
        dimensions: the names of what costs are made of, ``("",)`` for plain numbers.
    """

    name: str | None
    dimensions: tuple[str, ...]

    def capacity(self) -> object:
        """The capacity per window, as the code has it."""

    def max_capacity(self) -> Cost:
        """The most that an operation may cost."""

    def limits(self) -> tuple[Limit, ...]:
        """Its limits, in the order of their dimensions."""

    def options(self) -> ResourceOptions:
        """What else the store must know."""

    def bind(self, batcher: Batcher) -> None:
        """A batcher uses it: through its store the resource can be changed for the fleet."""


def checked_capacity(value: object, what: str = "capacity") -> int:
    """An integer from 0 to 2**53 - 1.

    Raises:
        ConfigurationError: it is not.
    """
    if isinstance(value, float) and (not math.isfinite(value) or value % 1):
        raise ConfigurationError(f"{what} {value!r}: capacities are integers")
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{what} {value!r}: capacities are integers, round it down")
    if not 0 <= value <= MAX_COST:
        raise ConfigurationError(f"{what} {value} is outside of 0 to {MAX_COST} (2**53 - 1)")
    return value
