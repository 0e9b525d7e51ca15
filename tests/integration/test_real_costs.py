"""Charges and estimates through the whole chain, on a real store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from by_hand import ByHand
from celery_batcher import Batch
from eventually import eventually

REAL = {"small": 3, "large": 40}


@pytest.fixture
def by_hand(redis_url: str, unique: str, key_prefix: str) -> Iterator[ByHand]:
    by_hand = ByHand(redis_url, unique, key_prefix, capacity=1000, beat_interval=1)
    yield by_hand
    by_hand.close()


def charge(batch: Batch) -> None:
    batch.charge_many((one, REAL[one.payload]) for one in batch)


def test_what_is_charged_frees_is_owed_and_is_stated_by_the_next_producer(by_hand: ByHand) -> None:
    work = by_hand.watcher(estimate=True, cost=20, cost_key=lambda payload: payload)
    by_hand.handlers["work"] = charge
    work.enqueue_many(["small", "small", "large"])

    (batch,) = eventually(by_hand.flush)  # a server that has just started waits for lost holds

    assert by_hand.run(batch) == {"done": 3, "cost": 60, "charged": 46}
    (limit,) = by_hand.batcher.status().limits
    assert (limit.held, limit.debt) == (46, 0)
    work.estimates._read_at = None  # type: ignore[union-attr] - as after a second
    costs = [work.operation(size).cost for size in REAL]
    assert costs == [3, 40]
    assert work.operation("another").cost == 20


def test_what_is_charged_above_its_cost_is_a_debt_that_status_shows(by_hand: ByHand) -> None:
    work = by_hand.watcher()
    by_hand.handlers["work"] = charge
    work.enqueue("large", cost=10)

    (batch,) = eventually(by_hand.flush)  # a server that has just started waits for lost holds
    by_hand.run(batch)

    (limit,) = by_hand.batcher.status().limits
    assert (limit.held, limit.debt) == (10, 30)
