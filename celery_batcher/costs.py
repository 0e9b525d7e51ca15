"""Costs: what operations take of a capacity, a number or one for each dimension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .config import did_you_mean
from .errors import InvalidCostError

MAX_COST = 2**53 - 1
"""The largest cost: what a double, and so a Lua script, holds exactly."""

Cost = int | Mapping[str, int]
"""An integer from 0; or, of a resource whose capacity has dimensions, one for each of them."""

PLAIN: tuple[str, ...] = ("",)
"""The dimensions of a cost that is a plain number."""


def check_number(cost: object) -> int:
    """Return the cost if it is an integer in range.

    Raises:
        InvalidCostError: it is negative, fractional, not a number, or above 2**53 - 1.
    """
    if type(cost) is int and 0 <= cost <= MAX_COST:
        return cost
    if isinstance(cost, float):
        raise InvalidCostError(f"cost {cost!r} is a float: costs are integers, round it up")
    if isinstance(cost, bool) or not isinstance(cost, int):
        raise InvalidCostError(f"cost {cost!r} is a {type(cost).__name__}: costs are integers")
    if cost < 0:
        raise InvalidCostError(f"cost {cost} is negative: costs start at 0")
    if cost > MAX_COST:
        raise InvalidCostError(f"cost {cost} is above {MAX_COST} (2**53 - 1), the largest cost")
    return int(cost)


def check_cost(cost: object) -> Cost:
    """Return the cost if it is one, whatever its dimensions are called.

    Raises:
        InvalidCostError: a number of it is negative, fractional, none, or above 2**53 - 1.
    """
    if isinstance(cost, Mapping):
        return {name: check_number(one) for name, one in cost.items()}
    return check_number(cost)


def costs_of(cost: object, dimensions: tuple[str, ...]) -> tuple[int, ...]:
    """The cost by dimension, in their order.

    Raises:
        InvalidCostError: its dimensions are not these, or a number of it is no cost.
    """
    if dimensions == PLAIN:
        if isinstance(cost, Mapping):
            raise InvalidCostError(
                f"cost {dict(cost)!r} has dimensions, but the capacity is one number: "
                "cost=..., an integer"
            )
        return (check_number(cost),)
    wanted = ", ".join(f"{name!r}: ..." for name in dimensions)
    if not isinstance(cost, Mapping):
        raise InvalidCostError(
            f"cost {cost!r} is one number, but the capacity has dimensions: cost={{{wanted}}}"
        )
    for name in cost:
        if name not in dimensions:
            hint = did_you_mean(str(name), dimensions)
            raise InvalidCostError(
                f"cost {dict(cost)!r}: the capacity has no dimension {name!r}{hint}: "
                f"cost={{{wanted}}}"
            )
    missing = [name for name in dimensions if name not in cost]
    if missing:
        raise InvalidCostError(f"cost {dict(cost)!r} lacks {', '.join(missing)}: cost={{{wanted}}}")
    return tuple(check_number(cost[name]) for name in dimensions)


def named(costs: tuple[int, ...], dimensions: tuple[str, ...]) -> Cost:
    """Costs by dimension as users see them."""
    if dimensions == PLAIN:
        return costs[0]
    return dict(zip(dimensions, costs, strict=False))


def spoken(costs: tuple[int, ...], dimensions: tuple[str, ...]) -> str:
    """Costs by dimension as people read them: ``812``, or ``2 requests, 812 tokens``."""
    if len(costs) == len(dimensions) and dimensions != PLAIN:
        return ", ".join(f"{one} {name}" for one, name in zip(costs, dimensions, strict=True))
    return ", ".join(map(str, costs))


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs, by dimension where they have them."""
    sums: Counter[str] = Counter()
    for cost in costs:
        sums.update({"": cost} if isinstance(cost, int) else cost)
    return dict(sums) if sums and "" not in sums else sums[""]
