"""The protocol of a capacity limit, and the check of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..costs import MAX_COST, Cost
from ..errors import ConfigurationError
from ..store.options import Limit, ResourceOptions

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
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(
            f"{what} {value!r} is a {type(value).__name__}: capacities are integers"
        )
    if isinstance(value, float):
        raise ConfigurationError(f"{what} {value!r}: capacities are integers, round it down")
    if not 0 <= value <= MAX_COST:
        raise ConfigurationError(f"{what} {value} is outside of 0 to {MAX_COST} (2**53 - 1)")
    return value


def check_sharing(resource: Resource, first: Batcher | None, batcher: Batcher) -> None:
    """Whether a batcher may use a resource that another one may use already.

    Raises:
        ConfigurationError: another one does, and without a name they would not share it.
    """
    if resource.name is None and first is not None and first.name != batcher.name:
        raise ConfigurationError(
            f"{resource!r} is used by the batchers {first.name} and {batcher.name}, and has no "
            "name: each would have the whole capacity for itself. Give it one to share it: "
            "name=..."
        )
