"""Caps of keys: their options, what they refuse, and no window of a key above its cap."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import START_MS
from celery_batcher import TooExpensiveError
from celery_batcher.store.options import Limits, WatcherOptions
from fleet import Fleet
from in_memory import InMemory

MS = 1000
SECOND = 1_000_000


@pytest.mark.parametrize(
    ("options", "by_key"),
    [
        ({}, False),
        ({"key_window": 2.0}, False),
        ({"key_capacity": 100}, True),
        ({"key_concurrency": 2}, True),
    ],
)
def test_a_cap_of_keys_makes_batches_of_one_key(
    site: InMemory, options: dict[str, Any], by_key: bool
) -> None:
    watcher = site.batcher().watcher(name="write", **options)(lambda batch: None)

    stored = watcher.store_options()

    assert (watcher.batch_by_key, watcher.caps_keys) == (by_key, by_key)
    assert (stored.by_key, stored.capped) == (by_key, by_key)
    assert stored.key_capacity == options.get("key_capacity")
    assert stored.key_window_ms == options.get("key_window", 1.0) * 1000
    assert stored.key_concurrency == options.get("key_concurrency", 0)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("way", ["enqueue", "enqueue_many"])
def test_an_operation_dearer_than_its_keys_capacity_is_refused_with_what_to_do(
    site: InMemory, way: str, constant: bool
) -> None:
    batcher = site.batcher()
    write = batcher.watcher(name="write", key_capacity=10)(lambda batch: None)
    key: Any = "k" if constant or way == "enqueue" else lambda payload: "k"
    argument: Any = 1 if way == "enqueue" else [1]

    with pytest.raises(TooExpensiveError, match="Split it, raise key_capacity, or enq") as caught:
        getattr(write, way)(argument, cost=11, key=key)

    assert (caught.value.cost, caught.value.capacity) == (11, 10)
    assert batcher.operations_in_buffer() == 0
    assert getattr(write, way)(argument, cost=10, key=key)
    assert getattr(write, way)(argument, cost=11)


def test_a_tenant_at_its_cap_waits_and_the_others_do_not(site: InMemory) -> None:
    batches: list[tuple[str | None, int]] = []
    batcher = site.batcher(flush_mode="tick")

    @batcher.watcher(name="write", key_capacity=2)
    def write(batch: Any) -> None:
        batches.append((batch[0].key, len(batch)))

    write.enqueue_many(range(5), key="flood")
    write.enqueue_many(range(2), key="other")
    write.enqueue_many(range(3))
    site.tick(batcher)

    assert sorted(batches, key=str) == [("flood", 2), ("other", 2), (None, 3)]


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    capacity=st.sampled_from([None, 30, 300]),
    key_capacity=st.integers(1, 60),
    window_ms=st.sampled_from([50, 300, 1000]),
    concurrency=st.sampled_from([0, 0, 1, 2]),
    grace_ms=st.sampled_from([2, 10]),
    lag_ms=st.sampled_from([0, 10, 400]),
    reply_us=st.sampled_from([0, 9_900, 12_000, 40_000]),
    twice=st.sampled_from([0.0, 0.5]),
)
def test_g3_in_every_window_a_key_starts_at_most_its_capacity(  # noqa: PLR0917
    seed: int,
    capacity: int | None,
    key_capacity: int,
    window_ms: int,
    concurrency: int,
    grace_ms: int,
    lag_ms: int,
    reply_us: int,
    twice: float,
) -> None:
    fleet = Fleet(
        seed,
        Limits(capacity=capacity, grace_ms=grace_ms),
        request_us=(0, 300),
        reply_us=(0, reply_us),
        lag_us=(0, lag_ms * MS),
        prompt=0.5,
        twice=twice,
    )
    options = WatcherOptions(
        "w",
        max_batch_size=7,
        key_capacity=key_capacity,
        key_window_ms=window_ms,
        key_concurrency=concurrency,
    )
    member = fleet.member("one", options)
    for key in "abc":
        most = min(key_capacity, capacity or key_capacity)
        member.put([fleet.random.randint(0, most) for _ in range(60)], key=key)
    member.tick(100, START_MS * MS + 4 * SECOND)
    for quarter in range(16):
        fleet.at(START_MS * MS + quarter * SECOND // 4, member.upkeep)

    fleet.advance(4 * SECOND)

    assert {one.key for one in fleet.starts} == set("abc") or reply_us > grace_ms * MS
    for key in "abc":
        assert fleet.worst("w", key, window_ms * MS) <= key_capacity
    if capacity:
        assert fleet.overshoots() == []


def test_a_key_uses_nearly_all_of_its_capacity() -> None:
    fleet = Fleet(1, Limits(), lag_us=(0, 5 * MS))
    member = fleet.member("one", WatcherOptions("w", key_capacity=100))
    member.put([1] * 3000, key="a")
    member.put([1] * 3000, key="b")
    member.tick(100, START_MS * MS + 10 * SECOND)

    fleet.advance(10 * SECOND)

    for key in "ab":
        started = sum(one.cost for one in fleet.starts if one.key == key)
        assert fleet.worst("w", key, SECOND) == 100
        assert started >= 960
