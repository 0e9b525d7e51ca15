"""Costs, ids and names: what is taken, and what a wrong one is told."""

from __future__ import annotations

import math
import os
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from celery_batcher import ConfigurationError, InvalidCostError, InvalidNameError, config
from celery_batcher import ProvisionedResource as Provisioned
from celery_batcher.costs import MAX_COST, check_cost
from celery_batcher.operation import IdFactory


class Index:
    """Like numpy's integers: an integer by protocol, but no int."""

    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("cost", [0, 1, MAX_COST])
def test_an_integer_from_zero_is_a_cost(cost: int) -> None:
    assert check_cost(cost) == cost


@pytest.mark.parametrize(
    ("cost", "advice"),
    [
        (-1, "negative"),
        (MAX_COST + 1, "above 9007199254740991"),
        (10**400, "above 9007199254740991"),
        (1.5, "round it up"),
        (1.0, "round it up"),
        (math.nan, "float"),
        (math.inf, "float"),
        (True, "bool"),
        (None, "NoneType"),
        ("1", "str"),
        (Decimal(1), "Decimal"),
        (Fraction(1), "Fraction"),
        ([], "list"),
        (Index(), "Index"),
    ],
)
def test_anything_else_is_refused_with_its_value_and_advice(cost: Any, advice: str) -> None:
    with pytest.raises(InvalidCostError, match=advice) as caught:
        check_cost(cost)

    shown = repr(cost)
    assert len(shown) > 100 or shown in str(caught.value)


@pytest.mark.parametrize("capacity", [-1, 1.5, math.nan, math.inf, True, "9", None, 2**53])
def test_a_capacity_that_is_none_is_refused_with_its_value(capacity: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Provisioned(capacity)

    assert repr(capacity) in str(caught.value)


@pytest.mark.parametrize("window", [0, -1, math.nan, math.inf, "1", True, None])
def test_a_window_that_is_none_is_refused_with_its_value(window: Any) -> None:
    with pytest.raises(ConfigurationError, match="window="):
        Provisioned(1, window=window)


def test_ids_are_unique_and_differ_from_those_of_a_forked_child() -> None:
    factory = IdFactory()
    ids = {factory() for _ in range(1000)}
    assert len(ids) == 1000

    other = IdFactory()
    assert other()[:16] != factory()[:16]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_never_repeats_its_parents_ids() -> None:
    factory = IdFactory()
    before = factory()
    factory._renew()

    assert factory()[:16] != before[:16]


@pytest.mark.parametrize("name", ["a", "A-z_0", "x" * 100])
def test_names_are_letters_digits_and_two_signs(name: str) -> None:
    assert config.check_name(name, "batcher") == name


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a:b", "{a}", "ä", "a\n", "x" * 101, None, 7])
def test_a_name_that_a_key_or_queue_cannot_carry_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError) as caught:
        config.check_name(name, "batcher")

    assert repr(name) in str(caught.value)
    with pytest.raises(InvalidNameError):
        Provisioned(1, name=name if name is not None else "")


def test_a_watchers_name_may_have_dots() -> None:
    assert config.check_watcher_name("proj.tasks.write") == "proj.tasks.write"
    for wrong in ("", "a/b", "a b", "ü", "x" * 151, None):
        with pytest.raises(InvalidNameError):
            config.check_watcher_name(wrong)
