"""Estimates: what operations cost that are enqueued without a cost, learned from charges."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_batcher import (
    Batch,
    Batcher,
    ConfigurationError,
    ProvisionedResource,
    StoreUnavailableError,
    Watcher,
)
from celery_batcher.costs import MAX_COST
from celery_batcher.estimates import rounded
from in_memory import InMemory

Charging = Callable[[Any], Any]


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    return site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(1000))


def estimating(
    batcher: Batcher, real: Charging = lambda payload: payload, **options: Any
) -> Watcher:
    """A watcher whose operations cost what `real` says of their payloads."""

    def handle(batch: Batch) -> None:
        batch.charge_many((one, real(one.payload)) for one in batch)

    return batcher.watcher(**{"name": "write", "cost": 7, "estimate": True} | options)(handle)


def run(site: InMemory, batcher: Batcher, watcher: Watcher, *payloads: Any) -> None:
    """Enqueue and handle, and let a second pass."""
    watcher.enqueue_many(payloads)
    site.tick(batcher, 12)


def cost(watcher: Watcher, payload: Any = None, **given: Any) -> Any:
    return watcher.operation(payload, **given).cost


def test_before_anything_was_learned_the_watchers_cost_counts(batcher: Batcher) -> None:
    assert cost(estimating(batcher)) == 7
    assert cost(estimating(batcher, name="other", cost=len), "abc") == 3


def test_what_was_charged_is_learned(site: InMemory, batcher: Batcher) -> None:
    write = estimating(batcher)

    run(site, batcher, write, 100, 200, 601)

    assert cost(write) == 301  # 300.33, rounded up
    write.enqueue(5)
    write.enqueue_many([5, 5])
    assert batcher.needs_capacity() == 3 * 301


def test_a_cost_that_is_given_is_not_overridden(site: InMemory, batcher: Batcher) -> None:
    write = estimating(batcher)
    run(site, batcher, write, 100)

    assert cost(write, cost=3) == 3
    write.enqueue(1, cost=3)
    write.enqueue_many([1, 1], cost=4)
    write.enqueue_many([1, 1], cost=lambda payload: payload)
    assert batcher.needs_capacity() == 3 + 8 + 2


def test_every_cost_key_has_its_own(site: InMemory, batcher: Batcher) -> None:
    write = estimating(
        batcher, real=lambda row: row["size"], cost_key=lambda row: row["table"], cost=9
    )

    run(site, batcher, write, {"table": "a", "size": 10}, {"table": "b", "size": 500})

    assert [cost(write, {"table": name}) for name in "abc"] == [10, 500, 9]


def test_dimensions_are_learned_each(site: InMemory) -> None:
    batcher = site.batcher(
        flush_mode="tick", rate_limiter=ProvisionedResource({"requests": 10, "tokens": 5000})
    )
    first = {"requests": 1, "tokens": 100}
    write = estimating(batcher, real=lambda n: {"requests": 1, "tokens": n}, cost=first)
    assert cost(write) == first

    run(site, batcher, write, 1000, 2001)

    assert cost(write) == {"requests": 1, "tokens": 1501}


def test_an_estimate_is_never_above_what_an_operation_may_cost(
    site: InMemory, batcher: Batcher
) -> None:
    write = estimating(batcher)

    run(site, batcher, write, 5000)

    assert cost(write) == 1000
    write.enqueue(1)


def test_the_store_is_asked_once_a_second_and_never_per_operation(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = estimating(batcher)
    asked: list[float] = []
    real = batcher.store.estimates

    def estimates(watcher: str) -> Any:
        asked.append(site.clock.monotonic())
        return real(watcher)

    monkeypatch.setattr(batcher.store, "estimates", estimates)
    for _ in range(25):
        write.enqueue_many(range(10))
        write.enqueue(1)
        site.clock.advance(0.1)

    assert asked == pytest.approx([0.0, 1.0, 2.0], abs=0.11)


def test_while_the_store_is_away_what_was_read_last_counts(
    site: InMemory,
    batcher: Batcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(watcher: str) -> Any:
        raise StoreUnavailableError("away")

    write = estimating(batcher)
    run(site, batcher, write, 100)
    assert cost(write) == 100
    monkeypatch.setattr(batcher.store, "estimates", away)
    site.clock.advance(5)

    assert [cost(write) for _ in range(3)] == [100] * 3
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert warnings == ["write: no new estimates of costs: away"]


def test_only_watchers_that_estimate_learn(site: InMemory, batcher: Batcher) -> None:
    write = estimating(batcher, estimate=False)

    run(site, batcher, write, 100)

    assert batcher.store.estimates("write") == {}
    assert cost(write) == 7


def test_an_estimate_of_other_dimensions_than_the_capacity_is_none(
    site: InMemory, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = estimating(batcher)
    monkeypatch.setattr(batcher.store, "estimates", lambda watcher: {"": (1.0, 2.0)})

    assert cost(write) == 7


# Cost keys that are none


def no_key(payload: Any) -> str:
    raise KeyError("table")


WRONG_KEYS = [
    (no_key, "cost_key of watcher write raised KeyError: 'table'"),
    (lambda payload: 5, "cost_key of watcher write: 5: text of 1 to 255 bytes"),
    (lambda payload: None, "cost_key of watcher write: None: text"),
    (lambda payload: "", "cost_key of watcher write: '': text"),
    (lambda payload: "x" * 256, "text of 1 to 255 bytes"),
]


@pytest.mark.parametrize(("cost_key", "message"), WRONG_KEYS)
def test_a_wrong_cost_key_is_an_error_when_enqueuing(
    batcher: Batcher, cost_key: Any, message: str
) -> None:
    write = estimating(batcher, cost_key=cost_key)

    for enqueue in (write.operation, write.enqueue, lambda one: write.enqueue_many([one])):
        with pytest.raises(ConfigurationError, match=message):
            enqueue(1)
    assert batcher.needs_capacity() == 0
    write.enqueue(1, cost=1)  # nothing is asked of a cost key where a cost is given


@pytest.mark.parametrize(("cost_key", "message"), WRONG_KEYS)
def test_a_wrong_cost_key_in_the_worker_is_a_warning_and_teaches_nothing(
    site: InMemory, batcher: Batcher, cost_key: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    write = estimating(batcher, real=lambda _: 5, cost_key=cost_key)
    write.enqueue_many([1, 1, 1], cost=8)

    site.tick(batcher)

    assert site.results == [{"done": 3, "cost": 24, "charged": 15}]
    assert batcher.store.estimates("write") == {}
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("write: nothing is learned of 3 operations: cost_key of watcher")


def test_one_wrong_key_does_not_keep_the_others_from_being_learned(
    site: InMemory, batcher: Batcher
) -> None:
    write = estimating(batcher, real=lambda _: 5, cost_key=lambda name: name)
    write.enqueue_many(["a", 1, "b"], cost=8)

    site.tick(batcher)

    assert batcher.store.estimates("write") == {"a": (5.0,), "b": (5.0,)}


def test_a_key_that_is_no_clean_text_is_the_same_on_both_sides(
    site: InMemory, batcher: Batcher
) -> None:
    write = estimating(batcher, real=lambda _: 5, cost_key=lambda name: "\ud800" + name)

    run(site, batcher, write, "ä")

    assert cost(write, "ä") == 5


def test_a_cost_key_without_estimates_is_refused(batcher: Batcher) -> None:
    with pytest.raises(ConfigurationError, match="says nothing without estimate=True"):
        batcher.watcher(cost_key=str)


# From means to costs


@given(
    means=st.lists(st.floats(0, 2.0**53, allow_nan=False), min_size=1, max_size=3),
    most=st.integers(0, MAX_COST),
)
def test_costs_are_means_rounded_up_and_bounded(means: list[float], most: int) -> None:
    for mean, one in zip(means, rounded(means, [most] * len(means)), strict=True):
        assert type(one) is int
        assert 0 <= one <= most
        assert one == most or mean - 0.001 <= one < mean + 1
    assert all(one <= MAX_COST for one in rounded(means, None))


@given(st.integers(0, 1_000_000), st.floats(-1e-6, 1e-6))
def test_a_mean_that_is_not_exact_is_not_rounded_up(cost: int, error: float) -> None:
    assert rounded([max(0.0, cost + error)], None) == (cost,)


def test_estimates_bring_a_wrong_cost_to_the_real_one(site: InMemory, batcher: Batcher) -> None:
    write = estimating(batcher, real=lambda _: 50, cost=500)
    costs = []
    for _ in range(30):
        costs.append(cost(write))
        run(site, batcher, write, 1)

    assert costs[:3] == [500, 50, 50]
