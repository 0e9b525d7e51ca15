"""Capacities on the command line: ``500``, ``10,1000``, ``requests=500``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..config import did_you_mean
from ..errors import ConfigurationError
from ..operation import new_id
from ..resources.provisioned import ProvisionedResource
from ..resources.shared import SharedResource
from ..status import LimitStatus

if TYPE_CHECKING:
    from ..batcher import Batcher

Wanted = Mapping[str, list[int]]
"""Figures by dimension, one for each window; "" where costs are plain numbers."""


def read(batcher: Batcher, given: Sequence[str]) -> Wanted:
    """The figures that were given.

    Raises:
        ConfigurationError: one is no figure, or of a dimension that the resource does not have.
    """
    known = batcher.dimensions
    wanted: dict[str, list[int]] = {}
    for one in given:
        dimension, _, figures = one.rpartition("=")
        if dimension not in known:
            has = "--set N" if known == ("",) else " ".join(f"--set {name}=N" for name in known)
            near = did_you_mean(dimension, known) if dimension else ""
            raise ConfigurationError(
                f"--set {one!r}: {batcher.name} has no dimension {dimension!r}{near or ': ' + has}"
            )
        try:
            wanted[dimension] = [int(figure.replace("_", "")) for figure in figures.split(",")]
        except ValueError as exc:
            raise ConfigurationError(
                f"--set {one!r}: a capacity is a whole number, such as 500"
            ) from exc
    return wanted


def stops(wanted: Wanted) -> bool:
    """Whether a figure lets nothing run any more that costs something."""
    return any(not figure for figures in wanted.values() for figure in figures)


def change(batcher: Batcher, wanted: Wanted, reserved: int | None) -> None:
    """Change the capacity for the whole fleet; dimensions that were not given stay as they are.

    Raises:
        ConfigurationError: the resource cannot be changed so.
    """
    resource = batcher.rate_limiter
    if isinstance(resource, SharedResource):
        _adopt(batcher, resource)
        for figure in wanted.get("", []):
            resource.set_shared_capacity(figure)
        if reserved is not None:
            resource.set_reserved_capacity(reserved)
    elif isinstance(resource, ProvisionedResource) and reserved is None:
        resource.set_capacity(_whole(batcher, wanted))
    else:
        raise ConfigurationError(
            f"{batcher.name} has no resource whose capacity can be set so: it has {resource!r}"
        )


def _adopt(batcher: Batcher, resource: SharedResource) -> None:
    """Start from what the store says of a shared capacity, and not from the code."""
    batcher.store.configure(batcher.limits(), [])
    token = new_id()
    known = batcher.store.limiter(token, 1, token)
    batcher.store.yield_limiter(token)
    resource.adopt(known.capacity, known.reserved)


def _whole(batcher: Batcher, wanted: Wanted) -> int | list[int] | dict[str, int | list[int]]:
    """A figure for each limit, in the shape of the resource."""
    whole: dict[str, list[int]] = {}
    for limit in batcher.status().limits or limits_in_code(batcher):
        whole.setdefault(limit.dimension, []).append(limit.capacity)
    shaped: dict[str, int | list[int]] = {}
    for dimension in batcher.dimensions:
        figures = wanted.get(dimension) or whole.get(dimension) or []
        shaped[dimension] = figures[0] if len(figures) == 1 else figures
    return shaped[""] if tuple(shaped) == ("",) else shaped


def limits_in_code(batcher: Batcher) -> list[LimitStatus]:
    """The limits of a resource that the store knows nothing of yet."""
    if batcher.rate_limiter is None:
        return []
    return [
        LimitStatus(
            batcher.dimensions[one.dimension - 1],
            one.window_ms / 1000,
            one.capacity,
            usable=one.capacity,
            held=0,
            debt=0,
        )
        for one in batcher.limits().all
    ]
