"""Resources: every wrong figure is refused, with what to do; and what the store says counts."""

from __future__ import annotations

import logging
import math
from datetime import timedelta
from typing import Any

import pytest

from celery_batcher import (
    BatcherError,
    ConfigurationError,
    InvalidCostError,
    InvalidNameError,
    ProvisionedResource,
    SharedResource,
    TooExpensiveError,
)
from celery_batcher.costs import MAX_COST, check_cost, costs_of
from celery_batcher.store.options import Limit
from in_memory import InMemory

NO_CAPACITY = [
    (-1, "capacity -1 is outside of 0 to"),
    (MAX_COST + 1, "is outside of 0 to 9007199254740991"),
    (1.5, r"capacity 1\.5: capacities are integers, round it down"),
    (10.0, r"capacity 10\.0: capacities are integers, round it down"),
    (math.nan, "capacity nan: capacities are integers"),
    (math.inf, "capacity inf: capacities are integers"),
    (True, "capacity True is a bool: capacities are integers"),
    ("10", "capacity '10' is a str: capacities are integers"),
    (b"10", "is a bytes: capacities are integers"),
    (None, "capacity None is a NoneType: capacities are integers"),
    ({10}, "is a set: capacities are integers"),
]


@pytest.mark.parametrize(("figure", "told"), NO_CAPACITY)
def test_what_is_no_capacity_is_refused_alone_in_a_window_and_in_a_dimension(
    figure: Any, told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ProvisionedResource(figure)
    with pytest.raises(ConfigurationError, match=told):
        ProvisionedResource((10, figure), window=(1, 60))
    with pytest.raises(ConfigurationError, match=told):
        ProvisionedResource({"requests": 10, "tokens": figure})


def test_capacities_from_nothing_to_the_largest_cost_are_legal() -> None:
    assert ProvisionedResource(0).max_capacity() == 0
    assert ProvisionedResource(MAX_COST).max_capacity() == MAX_COST
    both = ProvisionedResource({"requests": 0, "tokens": MAX_COST})
    assert both.max_capacity() == {"requests": 0, "tokens": MAX_COST}


def test_at_capacity_zero_what_costs_nothing_is_taken_and_all_else_refused(site: InMemory) -> None:
    watcher = site.batcher(rate_limiter=ProvisionedResource(0)).watcher(name="w")(print)

    watcher.enqueue(1, cost=0)
    with pytest.raises(TooExpensiveError, match="costs 1, and the capacity is 0"):
        watcher.enqueue(1, cost=1)


# Shapes


SHAPELESS: list[tuple[Any, dict[str, Any], str]] = [
    ((), {}, r"window=1\.0 has not the shape of the capacity \(\): one window for each figure"),
    ((10, 1000), {}, "one window for each figure, such as"),
    ((10, 1000), {"window": (1, 60, 3600)}, "one window for each figure"),
    (10, {"window": (1, 60)}, "one window for each figure"),
    (10, {"window": ()}, "one window for each figure"),
    ((10, 1000), {"window": (60, 60)}, "the same window twice"),
    ((10, 1000), {"window": (60, timedelta(minutes=1))}, "the same window twice"),
    ({}, {}, "capacity {} has no dimensions: name one at least, or give a number"),
    ({"requests": ()}, {}, "one window for each figure"),
    ({"requests": (10, 500)}, {"window": 60}, "one window for each figure"),
    ({"requests": 10}, {"window": {"tokens": 60}}, "different dimensions: name a window for each"),
    ({"requests": 10}, {"window": {}}, "different dimensions"),
    ({"requests": 10}, {"window": {"requests": 1, "tokens": 60}}, "different dimensions"),
    (10, {"window": {"requests": 1}}, "different dimensions"),
    (tuple(range(33)), {"window": tuple(range(1, 34))}, "33 limits, and a resource has at most 32"),
]


@pytest.mark.parametrize(("capacity", "options", "told"), SHAPELESS)
def test_capacities_and_windows_of_different_shapes_are_refused(
    capacity: Any, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ProvisionedResource(capacity, **options)


@pytest.mark.parametrize(
    "window", [0, -1, math.nan, math.inf, "1", True, None, timedelta(0), 1e300, timedelta(367)]
)
def test_a_window_that_is_none_is_refused(window: Any) -> None:
    with pytest.raises(ConfigurationError, match="but it is seconds above 0, up to 366 days"):
        ProvisionedResource(10, window=window)
    with pytest.raises(ConfigurationError, match="seconds above 0"):
        ProvisionedResource({"requests": (10, 20)}, window={"requests": (1, window)})


@pytest.mark.parametrize("name", ["", "a b", "tokens/s", "ä", "x" * 101, 1, None, ("a",)])
def test_a_dimension_without_a_good_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"dimension .*: 1 to 100 letters"):
        ProvisionedResource({"requests": 1, name: 1})


def test_a_window_for_all_dimensions_and_one_for_each_are_the_same() -> None:
    one = ProvisionedResource({"requests": (10, 500), "tokens": (7, 8)}, window=(1, 60))
    each = ProvisionedResource(
        {"requests": (10, 500), "tokens": (7, 8)},
        window={"tokens": (1, 60), "requests": (1, timedelta(minutes=1))},
    )

    assert one.limits() == each.limits()
    assert one.limits() == (
        Limit(1, 10, 1000),
        Limit(1, 500, 60_000),
        Limit(2, 7, 1000),
        Limit(2, 8, 60_000),
    )
    assert one.max_capacity() == {"requests": 10, "tokens": 7}


# Ramps


NO_RAMP = [
    ((0, 1), "with a step of 0 nothing ever rises"),
    ((-1, 1), "the ramp's step -1 is outside"),
    ((1.5, 1), r"the ramp's step 1\.5"),
    ((True, 1), "the ramp's step True is a bool"),
    (("1", 1), "the ramp's step '1' is a str"),
    ((1, 0), r"ramp=\(1, 0\), but it is \(step, every\): cost, and seconds above 0"),
    ((1, "1"), "seconds above 0"),
    ((1, None), "seconds above 0"),
    ((1,), r"it is \(step, every\)"),
    ((1, 2, 3), r"it is \(step, every\)"),
    (5, r"it is \(step, every\)"),
    ("ab", r"it is \(step, every\)"),
    (((1, 2), 1), "the ramp's step .* has not the shape of the capacity"),
    (({"tokens": 1}, 1), "has not the shape of the capacity"),
]


@pytest.mark.parametrize(("ramp", "told"), NO_RAMP)
def test_a_ramp_that_is_none_is_refused(ramp: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ProvisionedResource(10, ramp=ramp)


@pytest.mark.parametrize("step", [({"requests": 1}), {"request": 1, "tokens": 1}, (1, 2)])
def test_a_ramps_step_has_the_dimensions_of_the_capacity(step: Any) -> None:
    with pytest.raises(ConfigurationError, match="give as many figures, by the same names"):
        ProvisionedResource({"requests": 10, "tokens": 10}, ramp=(step, 1))


def test_a_ramps_step_is_one_for_all_or_one_for_each() -> None:
    capacity = {"requests": 10, "tokens": 500}

    assert ProvisionedResource(capacity, ramp=(5, 1)).options().ramp == (5, 5)
    each = ProvisionedResource(capacity, ramp=({"tokens": 50, "requests": 1}, 2.5)).options()
    assert (each.ramp, each.every_ms) == ((1, 50), 2500)


@pytest.mark.parametrize("adaptive", [0, 1, "yes", None])
def test_adaptive_is_true_or_false(adaptive: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"adaptive=.*, but it is True or False"):
        ProvisionedResource(10, adaptive=adaptive)


# Costs and dimensions


NO_COST = [-1, 1.5, math.nan, True, "1", None, MAX_COST + 1]


@pytest.mark.parametrize("cost", NO_COST)
def test_what_is_no_cost_is_refused_alone_and_in_a_dimension(cost: Any) -> None:
    for wrong, dimensions in ((cost, ("",)), ({"a": 1, "b": cost}, ("a", "b"))):
        with pytest.raises(InvalidCostError):
            check_cost(wrong)
        with pytest.raises(InvalidCostError):
            costs_of(wrong, dimensions)


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        ({"requests": 1, "token": 5}, "has no dimension 'token': did you mean 'tokens'"),
        ({"request": 1, "tokens": 5}, "has no dimension 'request': did you mean 'requests'"),
        ({"requests": 1, "tokens": 5, "rows": 1}, "has no dimension 'rows': cost={'requests'"),
        ({"requests": 1, 5: 1}, "has no dimension 5"),
        ({"requests": 1}, "lacks tokens: cost={'requests': ..., 'tokens': ...}"),
        ({}, "lacks requests, tokens"),
        (7, "is one number, but the capacity has dimensions: cost={'requests'"),
    ],
)
def test_a_cost_of_other_dimensions_than_the_resource_is_refused_with_the_nearest(
    site: InMemory, cost: Any, told: str
) -> None:
    resource = ProvisionedResource({"requests": 10, "tokens": 100})
    watcher = site.batcher(rate_limiter=resource).watcher(name="w")(print)

    with pytest.raises(InvalidCostError, match=told):
        watcher.enqueue("x", cost=cost)
    with pytest.raises(InvalidCostError, match=told):
        watcher.enqueue_many(["x"], cost=cost)


def test_a_cost_with_dimensions_is_refused_where_the_capacity_is_a_number(site: InMemory) -> None:
    watcher = site.batcher(rate_limiter=ProvisionedResource(10)).watcher(name="w")(print)

    with pytest.raises(InvalidCostError, match="has dimensions, but the capacity is one number"):
        watcher.enqueue("x", cost={"requests": 1})


def test_a_cost_above_the_capacity_of_one_dimension_is_too_expensive(site: InMemory) -> None:
    resource = ProvisionedResource({"requests": 10, "tokens": (100, 300)},
                                   window={"requests": 1, "tokens": (1, 60)})  # fmt: skip
    watcher = site.batcher(rate_limiter=resource).watcher(name="w")(print)

    with pytest.raises(TooExpensiveError, match="costs 101 tokens, and the capacity is 100"):
        watcher.enqueue("x", cost={"requests": 1, "tokens": 101})


# Changing the capacity


def test_a_resource_that_nobody_uses_cannot_be_changed() -> None:
    with pytest.raises(ConfigurationError, match="is used by no batcher: set_capacity writes to"):
        ProvisionedResource(10).set_capacity(5)


@pytest.mark.parametrize(("figure", "told"), NO_CAPACITY)
def test_a_changed_capacity_that_is_none_is_refused_and_changes_nothing(
    site: InMemory, figure: Any, told: str
) -> None:
    resource = ProvisionedResource(10)
    batcher = site.batcher(rate_limiter=resource)

    with pytest.raises(ConfigurationError, match=told):
        resource.set_capacity(figure)

    assert batcher.status().capacity is None or batcher.status().capacity == 10


@pytest.mark.parametrize(
    ("capacity", "window", "other"),
    [
        (10, 1, (10, 20)),
        (10, 1, {"requests": 10}),
        ((10, 20), (1, 60), 10),
        ((10, 20), (1, 60), (10, 20, 30)),
        ({"requests": 10, "tokens": 20}, 1, {"requests": 10}),
        ({"requests": 10, "tokens": 20}, 1, {"requests": 10, "token": 20}),
        ({"requests": 10, "tokens": 20}, 1, {"requests": 10, "tokens": (20, 30)}),
        ({"requests": 10, "tokens": 20}, 1, 10),
    ],
)
def test_a_changed_capacity_has_the_shape_of_that_in_the_code(
    site: InMemory, capacity: Any, window: Any, other: Any
) -> None:
    resource = ProvisionedResource(capacity, window=window)
    site.batcher(rate_limiter=resource)

    with pytest.raises(ConfigurationError, match="has not the shape of the capacity"):
        resource.set_capacity(other)


def test_a_capacity_is_changed_before_anyone_has_flushed(site: InMemory) -> None:
    resource = ProvisionedResource({"requests": 10, "tokens": (100, 500)},
                                   window={"requests": 1, "tokens": (1, 60)})  # fmt: skip
    batcher = site.batcher(rate_limiter=resource)

    resource.set_capacity({"tokens": (0, 400), "requests": 20})

    limits = batcher.store.counts().limits
    assert [one.limit.capacity for one in limits] == [20, 0, 400]


# Several batchers of a resource


@pytest.mark.parametrize("resource", [ProvisionedResource(10), SharedResource(0)])
def test_a_resource_without_a_name_belongs_to_one_batcher(site: InMemory, resource: Any) -> None:
    site.batcher("one", rate_limiter=resource)

    with pytest.raises(ConfigurationError, match="batchers one and two, and has no name: each"):
        site.batcher("two", rate_limiter=resource)


def test_a_resource_with_a_name_is_shared_by_batchers(site: InMemory) -> None:
    resource = ProvisionedResource(10, name="shared")
    one, two = (site.batcher(name, rate_limiter=resource) for name in ("one", "two"))

    resource.set_capacity(7)

    assert [one.status().capacity, two.status().capacity] == [7, 7]


def two_of_one_name(site: InMemory, first: ProvisionedResource, second: ProvisionedResource) -> Any:
    """The second of two batchers whose resources have one name; the first has flushed."""
    site.batcher("one", flush_mode="tick", rate_limiter=first).tick()
    return site.batcher("two", flush_mode="tick", rate_limiter=second)


def test_of_two_figures_for_one_resource_the_stores_counts_and_a_warning_names_both(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    second = two_of_one_name(
        site, ProvisionedResource(10, name="r"), ProvisionedResource(20, name="r")
    )

    with caplog.at_level(logging.WARNING, "celery_batcher"):
        second.tick()

    assert second.status().capacity == 10
    [told] = [one for one in caplog.messages if "resource r" in one]
    assert "is 10 per 1 s in the store and 20 per 1 s in the code" in told
    assert "set_capacity() changes it for the fleet" in told


def test_other_windows_than_in_the_store_need_another_name(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    new = ProvisionedResource((10, 100), window=(1, 60), name="r")
    second = two_of_one_name(site, ProvisionedResource(10, name="r"), new)

    with caplog.at_level(logging.WARNING, "celery_batcher"):
        second.tick()
    with pytest.raises(ConfigurationError, match=r"give the resource another one"):
        new.set_capacity((20, 200))

    assert second.status().capacity == 10
    [told] = [one for one in caplog.messages if "resource r" in one]
    assert "10 per 1 s in the store and 10 per 1 s, 100 per 60 s in the code" in told
    assert "give the resource another one" in told


@pytest.mark.parametrize(
    "capacity", [20, {"tokens": 20}, {"requests": 10, "token": 20}, {"tokens": 20, "requests": 10}]
)
def test_other_dimensions_than_in_the_store_are_refused(site: InMemory, capacity: Any) -> None:
    first = ProvisionedResource({"requests": 10, "tokens": 20}, name="r")
    second = ProvisionedResource(capacity, name="r")
    batcher = two_of_one_name(site, first, second)

    with pytest.raises(BatcherError, match=r"requests, tokens in the store and .* in the code"):
        batcher.tick()
    with pytest.raises(ConfigurationError, match="costs would be mixed up"):
        second.set_capacity(capacity)
