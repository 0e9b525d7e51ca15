"""Caps of keys: what one of them may start within a window, and have in flight."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from builders import BACKFILL, HIGH, START_MS, Bench, ids, op
from celery_batcher.store.base import Refused, Released, Settlement
from celery_batcher.store.options import Limits, WatcherOptions

CAPPED = WatcherOptions("w", key_capacity=10, key_window_ms=1000, max_batch_size=10)
ONE = WatcherOptions("w", key_concurrency=1, max_batch_size=1)
HOLD = 1.01
"""A window and the grace, in seconds."""

LIMITED = Limits(capacity=1000, flush_ms=1000)


@pytest.fixture(params=["unlimited", "limited"], autouse=True)
def resource(request: pytest.FixtureRequest, bench: Bench) -> None:
    """Caps hold with a resource and without."""
    if request.param == "limited":
        bench.limits = LIMITED


def at_rest(bench: Bench) -> Any:
    """All that is kept of keys' caps."""
    kept = bench.snapshot()
    if isinstance(kept, dict):
        own = ("h:", "f:", "g:", "x:")
        names = {name.rpartition("batcher:")[2] for name in kept}
        return {name for name in names if name.startswith(own) or name == "key_ends"}
    return {word for word in ("'key_ends'", "'keys'") if word in str(kept)}


def claimed(bench: Bench) -> tuple[Released, list[str]]:
    batch = bench.released()
    return batch, ids(bench.claim(batch))


def wait(bench: Bench) -> int:
    """How long the turn is told to wait, when nothing may be released."""
    answer = bench.release()
    assert isinstance(answer, Refused), answer
    assert answer.reason == "empty"
    return answer.wait_ms


# key_capacity


def test_a_key_starts_no_more_than_its_capacity_within_a_window(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("abcde", cost=4, key="k")
    bench.clock.advance(0.5)
    assert bench.drain() == [["a", "b"]]

    bench.clock.advance(HOLD - 0.001)
    assert bench.drain() == []
    bench.clock.advance(0.001)

    assert bench.drain() == [["c", "d"]]


def test_a_batch_has_operations_of_one_key(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put(op("a", key="k"), op("b", key="l"), op("c", key="k"))

    assert bench.drain() == [["a", "c"], ["b"]]


def test_other_keys_go_on_and_a_flood_of_one_starves_nobody(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many([f"f{n}" for n in range(100)], cost=5, key="flood")
    bench.put_many("abc", cost=10, key="other")
    bench.put_many("xyz", cost=10, key="third")

    rounds = []
    for _ in range(3):
        rounds.append(sorted(chain(*bench.drain())))
        bench.clock.advance(HOLD)

    assert rounds == [["a", "f0", "f1", "x"], ["b", "f2", "f3", "y"], ["c", "f4", "f5", "z"]]


def test_the_turn_is_told_when_the_next_key_comes_back(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.run()
    bench.clock.advance(0.4)
    bench.put_many("cd", cost=10, key="l")
    bench.run()

    assert wait(bench) == 610
    bench.clock.advance(0.61)
    assert bench.run() == ["b"]
    assert wait(bench) == 400


def test_what_is_not_claimed_holds_without_an_end(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    batch = bench.released()

    bench.clock.advance(20)
    assert bench.refused() == "empty"
    bench.claim(batch)

    assert wait(bench) == 1010


def test_a_hold_lasts_when_its_batch_ends_early_and_ends_when_it_ends_late(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("abc", cost=10, key="k")
    assert bench.run() == ["a"]
    assert bench.refused() == "empty"
    bench.clock.advance(HOLD)

    claimed(bench)
    bench.clock.advance(HOLD)

    assert bench.run() == ["c"]


def test_each_hold_that_ends_lets_go_of_its_own_cost(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put(op("a", cost=6, key="k"), op("b", cost=4, key="k"), op("c", cost=5, key="k"))
    bench.run()
    bench.clock.advance(0.5)
    bench.run()
    bench.clock.advance(HOLD - 0.5)

    assert bench.run() == ["c"]


def test_a_dear_head_waits_and_nothing_of_its_key_overtakes_it(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put(op("a", cost=4, key="k", priority=HIGH), op("b", cost=9, key="k", priority=HIGH))
    bench.put(op("c", cost=1, key="k"))
    bench.run()

    assert bench.refused() == "empty"
    bench.put(op("e", cost=1, key="k"), op("f", cost=1, key="l"))
    assert bench.drain() == [["f"]]
    bench.clock.advance(HOLD)

    assert bench.drain() == [["b"], ["c"]]
    bench.clock.advance(HOLD)
    assert bench.drain() == [["e"]]


def test_keys_that_come_back_leave_room_for_one_that_was_always_there(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    for key in "abc":
        bench.put_many([f"{key}{n}" for n in range(50)], cost=10, key=key)
    bench.put_many([f"z{n}" for n in range(20)], key="z")
    served: list[str] = []
    for _ in range(12):  # one batch each time that something may be released
        served += bench.run()
        bench.clock.advance(HOLD / 3)

    assert sum(name.startswith("z") for name in served) >= 3


def test_operations_of_cost_nothing_hold_nothing(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put_many("abc", cost=0, key="k")

    assert bench.drain() == [["a"], ["b"], ["c"]]
    assert at_rest(bench) == set()


def test_operations_without_a_key_have_no_caps(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_concurrency=1, max_batch_size=2))
    bench.put_many("abcdef", cost=10)

    assert [bench.released().operations for _ in range(3)] == [2, 2, 2]
    assert at_rest(bench) == set()


def test_each_watcher_has_caps_of_its_own(bench: Bench) -> None:
    bench.begin(CAPPED, WatcherOptions("v"))
    bench.put_many("ab", cost=10, key="k")
    bench.put_many("cd", cost=10, key="k", watcher="v")

    assert sorted(bench.drain()) == [["a"], ["c", "d"]]


def test_an_operation_dearer_than_its_keys_capacity_waits_until_that_is_raised(
    bench: Bench,
) -> None:
    bench.begin(CAPPED)
    bench.put(op("a", cost=11, key="k"), op("b", cost=3, key="k"), op("c", key="l"))
    assert bench.drain() == [["c"]]
    bench.store.configure(bench.limits, [replace(CAPPED, key_capacity=11)])

    bench.clock.advance(30)

    assert bench.drain() == [["a"]]


def test_a_cap_that_is_lifted_lets_everything_go_within_half_a_minute(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_window_ms=3_600_000))
    bench.put_many("abc", cost=10, key="k")
    assert bench.drain() == [["a"]]
    bench.store.configure(bench.limits, [WatcherOptions("w")])

    bench.clock.advance(30)

    assert bench.drain() == [["b", "c"]]


def test_a_lowered_capacity_binds_what_was_released(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put_many("ab", cost=4, key="k")
    bench.put(op("c", cost=7, key="l"))
    first, second, third = bench.released(), bench.released(), bench.released()
    bench.store.configure(bench.limits, [replace(CAPPED, key_capacity=6)])

    assert {third.cost, first.cost, second.cost} == {4, 7}
    states = [bench.claim(one).state for one in (first, second, third)]

    assert sorted(states) == ["claimed", "recalled", "wait"]
    bench.clock.advance(HOLD)
    waits = (first, second, third)[states.index("wait")]
    assert bench.claim(waits).state == "claimed"


def test_a_clock_that_went_back_keeps_no_key_longer_than_a_window(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.clock.advance(3600)
    bench.run()
    bench.clock.advance(-3600)
    assert bench.refused() == "empty"

    bench.clock.advance(HOLD)

    if bench.limits.limited:  # its credit begins anew when somebody asks for it
        assert bench.refused() == "credit"
        bench.clock.advance(0.05)
    assert bench.run() == ["b"]


# Renewals


def test_a_renewal_moves_the_hold_of_the_key(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    batch, _ = claimed(bench)
    bench.clock.advance(0.5)

    assert bench.store.renew(batch.id, "n", bench.limits, "r1")
    bench.clock.advance(0.1)
    assert bench.store.renew(batch.id, "n", bench.limits, "r1")  # a repeat changes nothing

    bench.clock.advance(HOLD - 0.101)
    assert bench.refused() == "empty"
    bench.clock.advance(0.001)
    assert bench.run() == ["b"]


def test_a_hold_that_has_ended_is_not_renewed(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_window_ms=200))
    bench.put_many("a", cost=10, key="k")
    batch, _ = claimed(bench)
    bench.clock.advance(0.21)

    assert not bench.store.renew(batch.id, "n", bench.limits, "r1")


def test_a_renewal_is_refused_when_the_capacity_is_less_by_now(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("a", cost=10, key="k")
    batch, _ = claimed(bench)
    bench.store.configure(bench.limits, [replace(CAPPED, key_capacity=9)])

    assert not bench.store.renew(batch.id, "n", bench.limits, "r1")
    bench.store.configure(bench.limits, [CAPPED])
    assert bench.store.renew(batch.id, "n", bench.limits, "r2")


def test_the_hold_of_a_key_is_renewed_only_with_that_of_the_resource(bench: Bench) -> None:
    bench.begin(CAPPED, capacity=10, flush_ms=1000)
    bench.put_many("ab", cost=10, key="k")
    batch, _ = claimed(bench)
    bench.store.set_capacity([9])
    bench.clock.advance(0.5)
    assert not bench.store.renew(batch.id, "n", bench.limits, "r1")
    bench.store.set_capacity([10])

    bench.clock.advance(HOLD - 0.5)

    assert bench.run() == ["b"]


# key_concurrency


def test_a_key_has_at_most_so_many_batches_in_flight(bench: Bench) -> None:
    bench.begin(replace(ONE, key_concurrency=2))
    bench.put_many("abcd", key="k")
    first, _ = claimed(bench)
    bench.released()
    bench.clock.advance(20)
    assert bench.refused() == "empty"

    bench.settle(first)

    assert claimed(bench)[1] == ["c"]
    assert bench.refused() == "empty"


def test_other_keys_go_on_beside_one_in_flight(bench: Bench) -> None:
    bench.begin(ONE)
    bench.put_many("abc", key="k")
    bench.put_many("xy", key="l")
    first = [claimed(bench)[1] for _ in range(2)]

    assert sorted(first) == [["a"], ["x"]]
    assert bench.refused() == "empty"


@pytest.mark.parametrize("ends", ["settle", "abandon", "expire", "probe", "pause", "give back"])
def test_a_key_comes_back_however_its_batch_ends(bench: Bench, ends: str) -> None:
    bench.begin(replace(ONE, key_capacity=10, max_attempts=0))
    bench.put_many("ab", cost=10, key="k")
    batch = bench.released()
    if ends not in ("probe", "pause"):
        bench.claim(batch, "n/1", 5000)
    assert bench.refused() == "empty"
    bench.clock.advance(HOLD)
    assert bench.refused() == "empty"

    if ends == "settle":
        assert bench.settle(batch, nonce="n/1")
    if ends == "give back":
        assert bench.settle(batch, "g", nonce="n/1")
    if ends == "abandon":
        assert bench.store.abandon(batch.id, "n", "lost")
    if ends == "expire":
        bench.clock.advance(5)
        limits = replace(bench.limits, outage_ms=10_000)
        assert bench.store.expire(bench.token, limits, "late", 10)
    if ends == "probe":
        assert bench.store.probe(bench.token, 1000, 10)
    if ends == "pause":
        bench.store.pause(-1)
        assert bench.store.probe(bench.token, 1000, 10)
        bench.store.pause(0)

    assert bench.run() == (["b"] if ends == "settle" else ["a"])


def test_a_recalled_batch_frees_what_it_held_at_once(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.released()
    bench.clock.advance(1)
    assert bench.refused() == "empty"

    assert bench.store.probe(bench.token, 1000, 10)

    assert bench.run() == ["a"]
    assert bench.refused() == "empty"


# Outcomes


@pytest.mark.parametrize("outcome", ["r", "g"])
def test_what_comes_back_counts_again_for_its_key(bench: Bench, outcome: str) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=5, key="k")
    assert bench.run(outcome) == ["a", "b"]
    assert bench.refused() == "empty"

    bench.clock.advance(HOLD)

    assert bench.run() == ["a", "b"]


def test_a_retry_that_was_delayed_waits_for_its_key(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    batch, _ = claimed(bench)
    bench.settle(batch, "r", delays={0: 1500})
    bench.clock.advance(1.2)
    bench.run()

    bench.clock.advance(0.4)
    assert bench.refused() == "empty"
    bench.clock.advance(HOLD - 0.4)

    assert bench.run() == ["a"]


def test_a_commit_changes_nothing_of_what_its_key_holds(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_concurrency=1))
    bench.put_many("abc", cost=5, key="k")
    batch, _ = claimed(bench)
    assert bench.store.commit(batch.id, "n", 1, Settlement("d-"))
    assert bench.store.renew(batch.id, "n", bench.limits, "r1")
    assert bench.refused() == "empty"
    assert bench.settle(batch)
    assert bench.refused() == "empty"

    bench.clock.advance(HOLD)

    assert bench.run() == ["c"]
    bench.clock.advance(HOLD)
    assert bench.refused() == "empty"
    assert at_rest(bench) == set()


# Halves


def test_halves_wait_for_their_key_and_others_pass_them(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_capacity=8))
    bench.put_many("abcd", cost=2, key="k")
    bench.put_many("x", key="l")
    batch, _ = claimed(bench)
    bench.settle(batch, "h")
    assert bench.drain() == [["x"]]

    bench.clock.advance(HOLD)

    assert bench.drain() == [["a", "b"], ["c", "d"]]


def test_halves_of_another_key_go_before_those_that_wait(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_capacity=8))
    bench.put_many("abcd", cost=2, key="k")
    bench.put_many("wxyz", cost=1, key="l")
    first, names = claimed(bench)
    second, _ = claimed(bench)
    assert names == ["a", "b", "c", "d"]
    bench.settle(first, "h")
    bench.settle(second, "h")

    assert bench.drain() == [["w", "x"], ["y", "z"]]


def test_halves_come_back_one_by_one_as_their_key_has_room(bench: Bench) -> None:
    bench.begin(replace(ONE, max_batch_size=10))
    bench.put_many("abcd", cost=1, key="k")
    batch, _ = claimed(bench)
    bench.settle(batch, "h")
    bench.put_many("e", cost=1, key="k")
    second, names = claimed(bench)
    assert names == ["a", "b"]
    assert bench.refused() == "empty"
    bench.settle(second, "h")

    assert bench.drain() == [["c", "d"], ["a"], ["b"], ["e"]]


def test_groups_that_wait_stay_when_the_caps_are_lifted_and_come_back_in_order(
    bench: Bench,
) -> None:
    bench.begin(replace(CAPPED, key_concurrency=1, max_batch_size=4))
    bench.put_many("abcdefgh", cost=1, key="k")
    batch, _ = claimed(bench)
    other, _ = claimed(bench.begin(replace(CAPPED, max_batch_size=4)))
    bench.begin(replace(CAPPED, key_concurrency=1, max_batch_size=4))
    bench.settle(other, "h")
    assert bench.refused() == "empty"
    bench.settle(batch, "h")
    bench.released()
    assert bench.refused() == "empty"
    bench.store.configure(bench.limits, [WatcherOptions("w")])

    bench.clock.advance(30)

    assert bench.drain() == [["c", "d"], ["e", "f"], ["g", "h"]]


def test_a_group_of_several_keys_from_before_the_caps_is_parted(bench: Bench) -> None:
    bench.begin(WatcherOptions("w"))
    bench.put(*(op(f"k{n}", key="k") for n in range(4)), op("l0", key="l"), op("l1", key="l"))
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "h")
    bench.store.configure(bench.limits, [CAPPED])

    assert bench.drain() == [["k0", "k1", "k2"], ["k3"], ["l0", "l1"]]


def test_waiting_halves_are_counted_and_audited(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_capacity=8))
    bench.put_many("abcd", cost=2, key="k")
    batch, _ = claimed(bench)
    bench.settle(batch, "h")
    assert bench.refused() == "empty"

    counts = bench.store.counts()

    assert (counts.waiting, counts.waiting_cost) == (4, 8)
    assert counts.watchers[0].next_age_ms == 0
    steps = [bench.store.audit(f"s{n}", 0) for n in range(50)]
    assert sum(step.over for step in steps) > 0
    assert not any(step.differences for step in steps)


def test_a_watcher_of_waiting_keys_still_tells_the_age_of_what_waits(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.run()
    bench.clock.advance(0.7)
    assert bench.refused() == "empty"

    age = bench.store.counts().watchers[0].next_age_ms

    assert age == bench.clock.now_ms() - START_MS


def test_the_audits_walk_does_not_bring_back_a_key_that_waits(bench: Bench) -> None:
    bench.begin(CAPPED)
    bench.put_many("ab", cost=10, key="k")
    bench.run()
    assert bench.refused() == "empty"
    before = bench.snapshot()

    for n in range(50):
        bench.store.audit(f"s{n}", 0)

    if isinstance(before, dict):
        rings = [name for name in bench.snapshot() if ":k:w:" in name]
        assert rings == []
    assert bench.refused() == "empty"


# What is kept


def test_nothing_is_kept_of_keys_that_went_away(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_capacity=2, key_concurrency=1))
    for n in range(150):
        bench.put_many([f"a{n}", f"b{n}"], cost=2, key=f"k{n}")
    for _ in range(2):
        bench.drain()
        bench.clock.advance(HOLD)
    assert at_rest(bench) != set()

    assert wait(bench) == 1  # a hundred at a time
    assert wait(bench) == -1

    assert at_rest(bench) == set()


def test_a_cost_that_was_counted_wrong_goes_with_the_last_hold(bench: Bench) -> None:
    client = getattr(bench.store, "client", None)
    if client is None:
        pytest.skip("the store in memory has no counter of it")
    bench.begin(CAPPED)
    bench.put_many("abc", cost=5, key="k")
    bench.run()
    sums = bench.store.keys["x:w"]  # type: ignore[attr-defined]
    client.hset(sums, "ek", 1000)
    client.hset(sums, "el", 1000)  # and nothing at all holds
    bench.put_many("x", cost=5, key="l")
    assert bench.drain() == [["x"]]

    bench.clock.advance(HOLD)

    assert bench.drain() == [["c"]]


# Repeats


def test_acts_that_are_sent_twice_count_once_for_a_key(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_concurrency=2))
    bench.put_many("ab", cost=5, key="k")
    bench.put_many("c", cost=5, key="k")
    first = bench.store.release(bench.token, "b1", bench.limits)
    assert bench.store.release(bench.token, "b1", bench.limits) == first
    for _ in range(2):
        assert bench.claim("b1").state == "claimed"
    for _ in range(2):
        assert bench.settle("b1")
    bench.clock.advance(HOLD)

    assert bench.drain() == [["c"]]
    bench.clock.advance(HOLD)
    assert bench.refused() == "empty"
    assert at_rest(bench) == set()


def test_back_fills_of_others_do_not_wait_for_halves_whose_key_waits(bench: Bench) -> None:
    bench.begin(replace(CAPPED, key_capacity=8))
    bench.put_many("abcd", cost=2, key="k")
    batch, _ = claimed(bench)
    bench.settle(batch, "h")
    bench.put_many("x", key="l", priority=BACKFILL)

    assert bench.drain() == [["x"]]
    bench.put_many("y", key="m", priority=BACKFILL)
    bench.clock.advance(HOLD)

    assert bench.drain() == [["a", "b"], ["c", "d"], ["y"]]


def test_a_recalled_batch_frees_its_part_beside_what_started(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put(op("a", cost=4, key="k"), op("b", cost=6, key="k"))
    bench.run()
    bench.released()
    bench.clock.advance(1)

    assert bench.store.probe(bench.token, 1000, 10)

    assert bench.run() == ["b"]


def test_nothing_is_kept_of_a_key_whose_holds_ended_one_by_one(bench: Bench) -> None:
    bench.begin(replace(CAPPED, max_batch_size=1))
    bench.put_many("ab", key="k")
    bench.run()
    bench.clock.advance(0.5)
    bench.run()

    bench.clock.advance(HOLD - 0.5)
    assert wait(bench) == 500
    bench.clock.advance(0.5)
    assert wait(bench) == -1

    assert at_rest(bench) == set()


def test_the_audit_counts_right_while_halves_leave_and_come_back(bench: Bench) -> None:
    bench.store.audit_bounds = (1, 10**6, 100)  # type: ignore[attr-defined]
    bench.begin(replace(ONE, max_batch_size=4))
    for key in "klm":
        bench.put_many([f"{key}{n}" for n in range(8)], key=key)
    for _ in range(3):
        batch, _ = claimed(bench)
        bench.settle(batch, "h")
    differences, passes = [], 0
    held: list[Released] = []
    for n in range(150):
        step = bench.store.audit(f"s{n}", 0)
        differences += step.differences
        passes += step.over
        if n % 4:
            batch = bench.release()
            if isinstance(batch, Released) and bench.claim(batch).state == "claimed":
                held.append(batch)
        elif held:
            bench.settle(held.pop(0), "g")

    assert passes > 1
    assert differences == []


def test_a_key_that_comes_and_goes_does_not_starve_a_dear_one(bench: Bench) -> None:
    bench.begin(ONE, capacity=10, flush_ms=100)
    bench.put_many([f"a{n}" for n in range(200)], key="a")
    bench.put_many([f"y{n}" for n in range(20)], cost=5, key="y")
    running: list[tuple[int, Released]] = []
    started = {1: 0, 5: 0}
    for step in range(800):
        if running and running[0][0] <= step:
            bench.settle(running.pop(0)[1])
        batch = bench.release()
        if isinstance(batch, Released):
            claimed_ = bench.claim(batch)
            assert claimed_.state == "claimed"
            started[batch.cost] += batch.cost
            running.append((step + 3, batch))
        bench.clock.advance(0.01)

    assert started[5] >= 25
    assert started[1] >= 25


def test_nothing_is_kept_of_a_key_whose_batches_have_ended(bench: Bench) -> None:
    bench.begin(ONE)
    bench.put_many("ab", key="k")

    assert bench.drain() == [["a"], ["b"]]

    assert at_rest(bench) == set()
