"""What operations really cost: capacity comes back or is owed, and estimates learn from it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from builders import Bench, op
from celery_batcher.store.base import Charge, Refused, Released
from celery_batcher.store.options import Limit, ResourceOptions, WatcherOptions


def charge(bench: Bench, batch: Released, number: int, *differences: int) -> bool:
    return bench.store.charge(batch.id, "n", number, Charge(differences))


def claimed(bench: Bench, cost: int = 100, **options: object) -> Released:
    """A claimed batch of one operation."""
    bench.put(op(f"o{next(bench.numbers)}", cost=cost, **options))  # type: ignore[arg-type]
    batch = bench.released()
    bench.claim(batch)
    return batch


def holds(bench: Bench, nth: int = 0) -> tuple[int, int]:
    """What a limit holds, and its debt."""
    limit = bench.store.counts().limits[nth]
    return limit.held, limit.debt


# Less, and more


def test_what_is_less_is_free_at_once(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000))
    bench.put(op("next", cost=60))
    assert bench.refused() == "capacity"

    assert charge(bench, batch, 1, -60)

    assert holds(bench) == (40, 0)
    assert bench.released().cost == 60


def test_what_is_less_comes_back_as_credit_too(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=1000, flush_ms=100)
    batches = [claimed(bench, 100)]
    bench.put(*(op(f"x{n}", cost=100) for n in range(9)))
    while isinstance(answer := bench.release(), Released):
        bench.claim(answer)
        batches.append(answer)
    assert answer.reason == "credit"

    for batch in batches:
        charge(bench, batch, 1, -100)

    assert sum(isinstance(bench.release(), Released) for _ in range(9)) == len(batches)


def test_credit_that_came_back_is_at_most_that_of_a_window(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=1000, flush_ms=100)
    for _ in range(30):
        charge(bench, claimed(bench, 100), 1, -100)
        bench.clock.advance(0.1)
    bench.put(*(op(f"x{n}", cost=100) for n in range(40)))

    released = sum(isinstance(bench.release(), Released) for _ in range(40))

    assert released <= 10


def test_what_is_more_is_owed_and_paid_by_the_next_releases(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000), 50)
    bench.put(op("next", cost=60))

    assert charge(bench, batch, 1, 180)
    assert holds(bench) == (50, 180)
    assert bench.refused() == "capacity"
    assert holds(bench) == (100, 130)
    bench.clock.advance(1.01)
    assert bench.refused() == "capacity"
    assert holds(bench) == (100, 30)
    bench.clock.advance(1.01)
    assert bench.released().cost == 60
    assert holds(bench) == (90, 0)


def test_a_hold_that_has_ended_frees_nothing_and_debts_are_made_whenever(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000), 50)
    bench.clock.advance(5)

    assert charge(bench, batch, 1, -40)
    assert holds(bench) == (0, 0)
    assert charge(bench, batch, 2, 20)
    assert holds(bench) == (0, 60)


def test_nothing_but_the_batchs_own_part_of_a_hold_is_freed(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=200, flush_ms=1000)
    first, _second = claimed(bench, 100), claimed(bench, 100)

    charge(bench, first, 1, 300)
    charge(bench, first, 2, -100)

    assert holds(bench) == (100, 0)


# Again, and too late


def test_a_charge_that_is_sent_again_counts_once(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000))

    before = [charge(bench, batch, 1, -60) for _ in range(3)]
    after = [charge(bench, batch, 2, 30) for _ in range(3)]
    late = charge(bench, batch, 1, -60)

    assert [*before, *after, late] == [True] * 7
    assert holds(bench) == (40, 90)


def test_the_newest_charge_counts_and_makes_good_those_that_never_came(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000))

    charge(bench, batch, 1, 400)
    assert holds(bench) == (100, 400)
    charge(bench, batch, 3, 50)
    assert holds(bench) == (100, 50)
    charge(bench, batch, 4, 0)
    assert holds(bench) == (100, 0)
    charge(bench, batch, 5, -100)
    assert holds(bench) == (0, 0)


def test_a_debt_that_was_paid_and_taken_back_lessens_what_others_owe(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=200, flush_ms=1000)
    first, second = claimed(bench, 50), claimed(bench, 50)
    charge(bench, first, 1, 100)
    bench.refused()  # pays it
    charge(bench, second, 1, 120)
    assert holds(bench) == (200, 120)

    charge(bench, first, 2, 0)

    assert holds(bench) == (200, 20)


def test_a_claim_that_has_ended_is_charged_nothing(bench: Bench) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000))
    before = bench.snapshot()

    assert not bench.store.charge(batch.id, "another", 1, Charge((5,), (("", (5,)),)))
    assert not bench.store.charge("none", "n", 1, Charge((5,), (("", (5,)),)))
    assert bench.snapshot() == before
    bench.settle(batch)
    assert not charge(bench, batch, 1, 5)
    assert holds(bench) == (100, 0)


def test_after_a_commit_the_rest_of_the_batch_is_charged(bench: Bench) -> None:
    bench.begin(capacity=100, flush_ms=1000).put(op("a", cost=30), op("b", cost=70))
    batch = bench.released()
    bench.claim(batch)
    charge(bench, batch, 1, -20)
    bench.settle(batch, "dg")
    assert holds(bench) == (80, 0)


# Dimensions and windows


def test_every_limit_of_a_dimension_is_charged_in_it(bench: Bench) -> None:
    bench.begin(
        capacity=10,
        flush_ms=1000,
        others=(Limit(2, 1000, 1000), Limit(2, 60_000, 60_000)),
        resource=ResourceOptions(dimensions=("requests", "tokens")),
    )
    batch = claimed(bench, 1, further=[500])

    charge(bench, batch, 1, 0, -300)
    assert [holds(bench, nth) for nth in range(3)] == [(1, 0), (200, 0), (200, 0)]
    charge(bench, batch, 2, 2, 100)
    assert [holds(bench, nth) for nth in range(3)] == [(1, 2), (200, 400), (200, 400)]


def test_without_a_resource_nothing_is_held_or_owed(bench: Bench) -> None:
    batch = claimed(bench.begin())

    assert bench.store.charge(batch.id, "n", 1, Charge((900,), (("", (1000,)),)))

    assert bench.store.counts().limits == ()
    assert bench.store.estimates("w") == {"": (1000.0,)}


# Estimates


def learn(
    bench: Bench, batch: Released, number: int, *samples: tuple[str, tuple[int, ...]]
) -> None:
    assert bench.store.charge(batch.id, "n", number, Charge((), samples))


def test_an_estimate_is_the_mean_of_the_first_samples_and_then_forgets(bench: Bench) -> None:
    batch = claimed(bench.begin())

    learn(bench, batch, 1, ("", (100,)), ("", (200,)), ("", (600,)))
    assert bench.store.estimates("w") == {"": (300.0,)}
    learn(bench, batch, 2, *[("", (300,))] * 40)
    assert bench.store.estimates("w") == {"": (300.0,)}
    learn(bench, batch, 3, ("", (500,)))
    assert bench.store.estimates("w") == {"": (310.0,)}


def test_a_lesson_that_is_sent_again_counts_once(bench: Bench) -> None:
    batch = claimed(bench.begin())

    learn(bench, batch, 1, ("", (100,)))
    learn(bench, batch, 2, ("", (400,)))
    learn(bench, batch, 2, ("", (400,)))

    assert bench.store.estimates("w") == {"": (250.0,)}


def test_estimates_are_by_watcher_key_and_dimension(bench: Bench) -> None:
    bench.begin(WatcherOptions("u"), WatcherOptions("w"))
    batch = claimed(bench)

    learn(bench, batch, 1, ("große Zeile", (3, 90)), ('"{}', (1, 2**53 - 1)))

    assert bench.store.estimates("w") == {"große Zeile": (3, 90), '"{}': (1, 2**53 - 1)}
    assert bench.store.estimates("u") == {}


def test_when_costs_have_other_dimensions_they_are_learned_anew(bench: Bench) -> None:
    batch = claimed(bench.begin())

    learn(bench, batch, 1, ("", (100,)), ("", (200,)))
    learn(bench, batch, 2, ("", (4, 900)))
    assert bench.store.estimates("w") == {"": (4, 900)}
    learn(bench, batch, 3, ("", (6,)))
    assert bench.store.estimates("w") == {"": (6,)}


def test_no_more_than_ten_thousand_keys_are_learned(bench: Bench) -> None:
    batch = claimed(bench.begin())
    for number in range(11):
        keys = [f"key {number}.{at}" for at in range(1000)]
        learn(bench, batch, number + 1, *((key, (5,)) for key in keys))
    learn(bench, batch, 20, ("key 0.0", (7,)))

    estimates = bench.store.estimates("w")

    assert len(estimates) == 10_000
    assert estimates["key 0.0"] == (6.0,)


# A long run


@pytest.mark.parametrize(("said", "real"), [(100, 500), (500, 100), (100, 100)])
def test_a_wrong_cost_settles_at_the_capacity(bench: Bench, said: int, real: int) -> None:
    capacity, windows = 20_000, 12
    bench.begin(WatcherOptions("w", max_batch_size=20), capacity=capacity, flush_ms=100)
    bench.limits = replace(bench.limits, max_open_batches=1000)
    bench.put_many([f"o{at}" for at in range(windows * capacity // min(said, real))], cost=said)
    costs = [0] * windows
    for tick in range(windows * 100):
        while isinstance(batch := bench.release(), Released):
            bench.claim(batch)
            charge(bench, batch, 1, batch.operations * (real - said))
            bench.settle(batch)
            costs[math.floor(tick / 100)] += batch.operations * real
        bench.clock.advance(0.01)

    assert max(costs[1:]) <= 1.05 * capacity, costs
    assert sum(costs[1:]) >= 0.9 * capacity * (windows - 1), costs


def test_a_refusal_says_that_charges_freed_capacity_lately_and_operations_wait(
    bench: Bench,
) -> None:
    batch = claimed(bench.begin(capacity=100, flush_ms=1000))
    assert bench.release() == Refused("empty", -1)
    bench.put(op("next", cost=60))
    assert bench.release() == Refused("capacity", 1010)

    charge(bench, batch, 1, -50)

    assert bench.release() == Refused("capacity", 1010, freed=True)
    bench.clock.advance(1.001)
    assert bench.release() == Refused("capacity", 9)
    charge(bench, batch, 2, -60)
    assert bench.released().cost == 60
    assert bench.release() == Refused("empty", -1)
