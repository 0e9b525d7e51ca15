"""What both stores do with batches after their release, and for operators."""

from __future__ import annotations

from typing import Any

import pytest

from builders import START_MS, Bench, ids, op, read, read_entries
from celery_batcher.store.base import Died, Released, Settlement, Standing, TakenBack
from celery_batcher.store.counts import WatcherCounts
from celery_batcher.store.options import Limit, Limits, WatcherOptions

SINGLE = WatcherOptions("w", max_batch_size=1)


# Settling


def test_done_operations_leave_everything_but_the_count(bench: Bench) -> None:
    bench.begin().put(op("a", cost=2), op("b", cost=3))
    batch = bench.released()
    bench.claim(batch)
    assert (bench.store.counts().running, bench.store.counts().running_cost) == (2, 5)

    assert bench.settle(batch) is True

    counts = bench.store.counts()
    assert (counts.done, counts.running, counts.running_batches, counts.unsettled_cost) == (
        2,
        0,
        0,
        0,
    )


def test_mixed_outcomes_go_where_they_say(bench: Bench) -> None:
    bench.begin().put(*(op(id, registered=True) for id in ("done", "retry", "back", "dead")))
    batch = bench.released()
    bench.claim(batch)

    assert bench.settle(batch, "drgx", reason="because") is True

    counts = bench.store.counts()
    assert (counts.done, counts.waiting, counts.dead, counts.unsettled_cost) == (1, 2, 1, 2)
    (dead,) = bench.store.dead("w", 10)
    assert (dead.at_ms, dead.reason, read_entries(dead.entry)[0].id) == (
        START_MS,
        "because",
        "dead",
    )
    claim = bench.claim(bench.released())
    assert [(one.id, one.attempt) for one in read(claim.blocks)] == [("retry", 2), ("back", 1)]
    again = bench.put(*(op(id, registered=True) for id in ("done", "retry", "back", "dead")))
    assert (again.operations, again.duplicates) == (2, 2)


def test_one_outcome_stands_for_all(bench: Bench) -> None:
    bench.begin().put_many("abc")

    assert bench.run("g") == ["a", "b", "c"]
    assert bench.run("x") == ["a", "b", "c"]
    assert bench.store.counts().dead == 3


def test_an_operation_is_tried_max_attempts_times_and_then_dead(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=3)).put(op("a", cost=4))
    attempts = []
    while isinstance(batch := bench.release(), Released):
        attempts += [one.attempt for one in read(bench.claim(batch).blocks)]
        bench.settle(batch, "r", reason=f"failure {len(attempts)}")

    assert attempts == [1, 2, 3]
    counts = bench.store.counts()
    assert (counts.dead, counts.dead_cost, counts.unsettled_cost) == (1, 4, 0)
    assert [dead.reason for dead in bench.store.dead("w", 10)] == ["failure 3"]


def test_without_a_limit_of_attempts_an_operation_is_tried_for_ever(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=0)).put(op("a", attempt=65534))
    for _ in range(3):
        bench.run("r")

    batch = bench.released()
    assert [one.attempt for one in read(bench.claim(batch).blocks)] == [65535]
    assert bench.store.counts().dead == 0


def test_giving_back_counts_no_attempt(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1)).put(op("a"))
    for _ in range(5):
        bench.run("g")

    assert bench.run() == ["a"]


@pytest.mark.parametrize("outcome", ["g", "r"])
def test_what_comes_back_keeps_its_place_before_what_was_staged_later(
    bench: Bench, outcome: str
) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2, max_attempts=0)).put_many("abcdef")
    first, second = bench.released(), bench.released()
    bench.claim(first)
    bench.claim(second)
    bench.settle(second, outcome)
    bench.settle(first, outcome)

    assert [id for batch in bench.drain() for id in batch] == list("abcdef")


def test_a_reason_may_be_any_text(bench: Bench) -> None:
    bench.begin().put_many("a")
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch, "x", reason="größer:\n\x00" * 100)

    assert bench.store.dead("w", 1)[0].reason == "größer:\n\x00" * 100


def test_only_the_claim_settles_and_a_refusal_leaves_no_trace(bench: Bench) -> None:
    bench.begin().put_many("ab")
    batch = bench.released()
    before = bench.snapshot()
    assert bench.settle(batch, nonce="n") is False
    assert bench.snapshot() == before
    bench.claim(batch, "one")
    before = bench.snapshot()

    assert bench.settle(batch, nonce="two") is False

    assert bench.snapshot() == before
    assert bench.settle("unknown") is False


def test_a_settled_claim_answers_yes_again_for_a_minute_and_another_claim_no(
    bench: Bench,
) -> None:
    bench.begin(SINGLE).put_many("ab")
    batch = bench.released()
    bench.claim(batch)
    bench.settle(batch)

    assert bench.settle(batch) is True
    assert bench.settle(batch, nonce="other") is False
    bench.clock.advance(60)
    bench.run()
    assert bench.settle(batch) is False


# Deadlines


def test_a_batch_is_taken_back_at_its_deadline_and_the_attempt_counts(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", bisect=False)).put(op("a"), op("b"))
    batch = bench.released()
    bench.claim(batch, ms=30_000)
    for _ in range(29):
        assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
        bench.clock.advance(1)
    bench.clock.advance(0.999)
    assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
    bench.clock.advance(0.001)

    taken = bench.store.expire(bench.token, bench.limits, "late", 10)

    assert taken == [TakenBack(batch.id, "w", 2)]
    counts = bench.store.counts()
    assert (counts.running, counts.waiting, counts.expired_batches) == (0, 2, 1)
    assert bench.settle(batch) is False
    again = bench.claim(bench.released())
    assert [(one.id, one.attempt) for one in read(again.blocks)] == [("a", 2), ("b", 2)]


def test_an_owner_takes_its_claim_back_at_once_and_the_attempt_counts(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", bisect=False)).put(op("a"), op("b"))
    batch = bench.released()
    bench.claim(batch, nonce="host/12/x")

    taken = bench.store.abandon(batch.id, "host/12", "lost")

    assert taken == TakenBack(batch.id, "w", 2)
    counts = bench.store.counts()
    assert (counts.running, counts.running_batches, counts.waiting) == (0, 0, 2)
    assert bench.settle(batch, nonce="host/12/x") is False
    assert [one.attempt for one in read(bench.claim(bench.released()).blocks)] == [2, 2]


def test_what_an_owner_takes_back_is_halved_as_if_it_had_failed(bench: Bench) -> None:
    bench.begin().put_many("ab")
    batch = bench.released()
    bench.claim(batch, nonce="host/12/x")

    assert bench.store.abandon(batch.id, "host/12", "lost") == TakenBack(batch.id, "w", 2)

    assert bench.drain() == [["a"], ["b"]]
    assert bench.store.counts().halved_batches == 1


def test_an_owner_gives_its_claim_back_and_no_attempt_counts(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1)).put_many("ab")
    batch = bench.released()
    bench.claim(batch, nonce="host/12/x")

    assert bench.store.abandon(batch.id, "host/12", "", attempt=False) is not None

    assert [one.attempt for one in read(bench.claim(bench.released()).blocks)] == [1, 1]


def test_what_is_taken_back_keeps_what_was_committed_and_dies_of_its_last_attempt(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1)).put_many("ab")
    batch = bench.released()
    bench.claim(batch, nonce="host/12/x")
    assert bench.store.commit(batch.id, "host/12/x", 1, Settlement("d-"))

    taken = bench.store.abandon(batch.id, "host/12", "lost")

    assert taken == TakenBack(batch.id, "w", 1, (Died("b", 1),))
    assert [dead.reason for dead in bench.store.dead("w", 10)] == ["lost"]
    counts = bench.store.counts()
    assert (counts.done, counts.dead, counts.unsettled_cost) == (1, 1, 0)


def test_no_owner_takes_back_what_is_open_settled_or_claimed_by_another(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("abc")
    open, settled, anothers = (bench.released() for _ in "abc")
    bench.claim(settled, nonce="host/1/x")
    assert bench.settle(settled, nonce="host/1/x")
    bench.claim(anothers, nonce="host/12/x")
    before = bench.snapshot()

    for id in (open.id, settled.id, anothers.id, "unknown"):
        assert bench.store.abandon(id, "host/1", "lost") is None

    assert bench.snapshot() == before


def test_outcomes_after_the_end_of_their_claim_are_refused_and_counted_once(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("ab")
    late, settled = bench.released(), bench.released()
    bench.claim(late, ms=100)
    bench.claim(settled)
    assert bench.settle(settled)
    bench.clock.advance(0.1)
    bench.store.expire(bench.token, bench.limits, "late", 10)
    assert bench.store.counts().late_batches == 0

    assert not bench.store.commit(late.id, "n", 1, Settlement("d"))
    assert not bench.settle(late)
    assert not bench.settle(late)
    assert bench.settle(settled)
    assert not bench.store.commit(settled.id, "n", 1, Settlement("d"))  # from before, sent again

    assert bench.store.counts().late_batches == 1


def test_an_operation_that_expires_in_its_last_attempt_is_dead_with_the_reason(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1)).put_many("a")
    bench.claim(bench.released(), ms=100)
    bench.clock.advance(0.1)

    bench.store.expire(bench.token, bench.limits, "too late", 10)

    assert [dead.reason for dead in bench.store.dead("w", 10)] == ["too late"]
    assert bench.store.counts().unsettled_cost == 0


def test_what_died_of_its_last_attempt_is_named_once_by_the_act_that_took_it_back(
    bench: Bench,
) -> None:
    bench.begin(WatcherOptions("w", max_attempts=2, max_dead=1, bisect=False))
    bench.put(op("first"), op("last", attempt=2), op("größte", attempt=2, registered=True))
    late = bench.released()
    bench.claim(late, ms=100)
    bench.clock.advance(0.1)

    taken = bench.store.expire(bench.token, bench.limits, "late", 10)

    assert taken == [TakenBack(late.id, "w", 3, (Died("last", 2), Died("größte", 2)))]
    assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
    lost = bench.released()
    bench.claim(lost, nonce="host/12/x")
    taken_back = bench.store.abandon(lost.id, "host/12", "lost")
    assert taken_back == TakenBack(lost.id, "w", 1, (Died("first", 2),))
    assert bench.store.abandon(lost.id, "host/12", "lost") is None


def test_what_is_halved_or_recalled_has_not_died(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1)).put_many("ab")
    batch = bench.released()
    bench.claim(batch, ms=100)
    bench.clock.advance(0.1)

    assert bench.store.expire(bench.token, bench.limits, "late", 10) == [
        TakenBack(batch.id, "w", 2)
    ]
    alone = bench.released()
    bench.clock.advance(1)
    assert bench.store.probe(bench.token, 1000, 10) == [TakenBack(alone.id, "w", 1)]


def test_no_claim_expires_for_a_grace_after_nobody_could_reach_the_store(bench: Bench) -> None:
    bench.begin(claim_grace_ms=1000).put_many("a")
    bench.claim(bench.released(), ms=500)
    assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
    bench.clock.advance(bench.limits.outage_ms / 1000 + 1)
    assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
    bench.clock.advance(0.999)
    assert bench.store.expire(bench.token, bench.limits, "late", 10) == []
    bench.clock.advance(0.001)
    assert len(bench.store.expire(bench.token, bench.limits, "late", 10)) == 1


def test_expiry_takes_the_oldest_deadlines_and_no_more_than_asked(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("abc")
    batches = [bench.released() for _ in "abc"]
    for ms, batch in zip([300, 100, 200], batches, strict=True):
        bench.claim(batch, ms=ms)
    bench.clock.advance(1)

    taken = bench.store.expire(bench.token, bench.limits, "late", 2)

    assert [one.id for one in taken] == [batches[1].id, batches[2].id]


def test_a_turn_that_was_lost_takes_nothing_back_and_offers_nothing(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("ab")
    bench.claim(bench.released(), ms=100)
    bench.released()
    bench.clock.advance(10)
    before = bench.snapshot()

    assert bench.store.expire("lost", bench.limits, "late", 10) == []
    assert bench.store.probe("lost", 1000, 10) == []
    assert bench.store.offer("lost", 10) == []

    assert bench.snapshot() == before


# Offers


def test_a_released_batch_is_offered_until_its_publication_is_noted(bench: Bench) -> None:
    bench.begin().put_many("a")
    batch = bench.released()

    assert bench.store.published([batch.id, "unknown"]) == 1
    assert bench.store.offer(bench.token, 10) == []
    bench.clock.advance(5)
    assert [one.id for one in bench.store.offer(bench.token, 10)] == [batch.id]


def test_publication_is_repeated_at_doubling_intervals_up_to_five_minutes(bench: Bench) -> None:
    bench.begin().put_many("a")
    bench.released()
    offered = []
    for second in range(1200):
        if bench.store.offer(bench.token, 10):
            offered.append(second)
        bench.clock.advance(1)

    assert offered == [0, 5, 15, 35, 75, 155, 315, 615, 915]


def test_a_claimed_batch_is_not_offered(bench: Bench) -> None:
    bench.begin().put_many("a")
    batch = bench.released()
    bench.claim(batch)

    assert bench.store.offer(bench.token, 10) == []
    assert bench.store.published([batch.id]) == 0


def test_an_offer_describes_the_batch_as_its_release_did(bench: Bench) -> None:
    bench.begin().put(op("a", cost=7))
    batch = bench.released()

    assert bench.store.offer(bench.token, 10) == [batch]


@pytest.mark.parametrize("blocked", ["paused", "closed"])
def test_nothing_is_offered_that_could_not_be_claimed(bench: Bench, blocked: str) -> None:
    bench.begin().put_many("a")
    bench.released()
    (bench.store.pause if blocked == "paused" else bench.store.shut)(1000)

    assert bench.store.offer(bench.token, 10) == []
    bench.clock.advance(1)
    assert len(bench.store.offer(bench.token, 10)) == 1


# Probe


def test_a_watcher_that_claims_nothing_is_put_on_probe_with_one_operation(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=2)).put_many("abcde")
    released = [bench.released(), bench.released()]
    bench.clock.advance(0.999)
    assert bench.store.probe(bench.token, 1000, 10) == []
    bench.clock.advance(0.001)

    recalled = bench.store.probe(bench.token, 1000, 10)

    assert [one.id for one in recalled] == [one.id for one in released]
    counts = bench.store.counts()
    assert (counts.waiting, counts.open_batches, counts.watchers[0].on_probe) == (5, 0, True)
    probe = bench.released()
    assert probe.operations == 1
    assert bench.refused() == "empty"
    bench.clock.advance(600)
    assert bench.store.probe(bench.token, 1000, 10) == []

    assert ids(bench.claim(probe)) == ["a"]
    assert bench.store.counts().watchers[0].on_probe is False
    assert bench.drain() == [["b", "c"], ["d", "e"]]


def test_a_batch_on_probe_whose_task_was_lost_is_published_again(bench: Bench) -> None:
    bench.begin()
    bench.put_many("ab")
    bench.released()
    bench.clock.advance(1)
    bench.store.probe(bench.token, 1000, 10)
    probe = bench.released()
    bench.store.published([probe.id])
    bench.clock.advance(4.999)
    assert bench.store.offer(bench.token, 10) == []
    bench.clock.advance(0.001)

    assert [one.id for one in bench.store.offer(bench.token, 10)] == [probe.id]


def test_a_recall_counts_no_attempt_and_frees_the_hold(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_attempts=1), capacity=10, flush_ms=1000)
    bench.put(op("a", cost=10))
    bench.released()
    bench.clock.advance(1)

    bench.store.probe(bench.token, 1000, 10)

    assert bench.store.counts().held == 0
    claim = bench.claim(bench.released())
    assert [(one.id, one.attempt) for one in read(claim.blocks)] == [("a", 1)]


def test_time_to_claim_counts_from_the_first_publication(bench: Bench) -> None:
    bench.begin()
    bench.put_many("ab")
    batch = bench.released()
    bench.clock.advance(5)  # a slow broker
    bench.store.published([batch.id])
    bench.clock.advance(0.999)
    assert bench.store.probe(bench.token, 1000, 10) == []
    bench.store.published([batch.id])
    bench.clock.advance(0.001)

    assert [one.id for one in bench.store.probe(bench.token, 1000, 10)] == [batch.id]


def test_a_watcher_that_runs_a_batch_is_not_put_on_probe(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("ab")
    bench.claim(bench.released())
    bench.released()
    bench.clock.advance(10)

    assert bench.store.probe(bench.token, 1000, 10) == []


def test_a_pause_recalls_unclaimed_batches_and_blames_no_watcher(bench: Bench) -> None:
    bench.begin(capacity=10).put_many("a")
    bench.released()
    bench.store.pause(-1)
    bench.clock.advance(1)

    assert len(bench.store.probe(bench.token, 1000, 10)) == 1

    counts = bench.store.counts()
    assert (counts.watchers[0].on_probe, counts.held, counts.waiting) == (False, 0, 1)


def test_no_more_is_recalled_at_once_than_asked(bench: Bench) -> None:
    bench.begin(SINGLE).put_many("abc")
    for _ in "abc":
        bench.released()
    bench.clock.advance(1)

    assert len(bench.store.probe(bench.token, 1000, 2)) == 2
    assert len(bench.store.probe(bench.token, 1000, 2)) == 1
    assert [id for _ in "abc" for id in bench.run()] == list("abc")


# Operators


def test_of_two_pauses_the_later_end_wins(bench: Bench) -> None:
    assert bench.store.pause(1000) is True
    assert bench.store.pause(500) is False
    assert bench.store.counts().paused_ms == 1000
    assert bench.store.pause(2000) is True
    bench.clock.advance(1.5)
    assert bench.store.counts().paused_ms == 500


def test_a_pause_without_end_lasts_until_someone_resumes(bench: Bench) -> None:
    bench.begin().put_many("a")
    assert bench.store.pause(-1) is True
    assert bench.store.pause(-1) is False
    assert bench.store.pause(1000) is False
    bench.clock.advance(1_000_000)
    assert bench.store.counts().paused_ms == -1
    assert bench.refused() == "paused"

    assert bench.store.pause(0) is True
    assert bench.store.pause(0) is False
    assert bench.run() == ["a"]


def test_a_pause_ends_by_itself(bench: Bench) -> None:
    bench.begin().put_many("a")
    bench.store.pause(500)
    assert bench.release().wait_ms == 500  # type: ignore[union-attr]
    bench.clock.advance(0.5)
    assert bench.store.pause(0) is False
    assert bench.run() == ["a"]


def test_the_longer_of_two_closings_counts(bench: Bench) -> None:
    bench.begin().put_many("a")
    assert bench.store.shut(1000) is True
    assert bench.store.shut(400) is False
    assert bench.release().wait_ms == 1000  # type: ignore[union-attr]
    bench.clock.advance(1)
    assert bench.run() == ["a"]


def test_counts_have_a_row_per_watcher_by_name(bench: Bench) -> None:
    bench.begin(WatcherOptions("z", max_batch_size=1), WatcherOptions("a"))
    bench.put(op("1", cost=2), op("2", cost=3), watcher="z")
    bench.released()
    bench.clock.advance(2)

    assert bench.store.counts().watchers == (
        WatcherCounts("a"),
        WatcherCounts("z", waiting=1, waiting_cost=3, open_batches=1, next_age_ms=2000),
    )


def test_configuring_answers_the_capacity_that_stood_before(bench: Bench) -> None:
    assert bench.store.configure(Limits(capacity=None), []) is None
    assert bench.store.set_capacity([7]) is None
    standing = Standing(("",), (Limit(1, 0, 1000),))
    assert bench.store.configure(Limits(capacity=0), []) == standing
    assert bench.store.configure(Limits(capacity=9), []) == standing
    assert bench.store.set_capacity([7]) == (0,)
    assert bench.store.configure(Limits(capacity=None), []) == Standing(("",), (Limit(1, 7, 1000),))
    assert bench.store.counts().capacity == 7


def test_options_written_again_apply_to_what_waits(bench: Bench) -> None:
    bench.begin().put_many("abcd")

    bench.store.configure(bench.limits, [SINGLE])

    assert bench.drain() == [["a"], ["b"], ["c"], ["d"]]


def test_set_asides_and_dead_are_the_oldest_first_and_as_many_as_asked(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1)).put_many("abc")
    for id in "xyz":
        bench.put(b"", id=id)
    for _ in "abc":
        bench.run("x")
        bench.clock.advance(1)

    assert len(bench.store.set_asides(2)) == 2
    assert [read_entries(one.entry)[0].id for one in bench.store.dead("w", 2)] == ["a", "b"]
    assert bench.store.dead("unknown", 5) == []


@pytest.mark.parametrize("act", ["expire", "probe"])
def test_a_call_takes_back_a_thousand_operations_and_leaves_the_rest_to_the_next(
    bench: Bench, act: str
) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=400, max_attempts=0))
    for at in range(5):
        bench.put(*(op(f"o{at}-{n}") for n in range(400)))
    for batch in [bench.released() for _ in range(5)]:
        if act == "expire":
            bench.claim(batch, ms=500)
    take_back: Any = {
        "expire": lambda: bench.store.expire(bench.token, bench.limits, "late", 256),
        "probe": lambda: bench.store.probe(bench.token, 500, 256),
    }[act]
    bench.store.expire(bench.token, bench.limits, "late", 256)
    bench.clock.advance(1)

    assert [sum(one.operations for one in take_back()) for _ in range(3)] == [1200, 800, 0]
    assert bench.store.counts().waiting == 2000
