"""What keeps an operation from running, decided from an outlook alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from celery_batcher.binding import Question, eta_of, lasting, longest, reasons, windows_of
from celery_batcher.store.counts import WatcherCounts
from celery_batcher.store.options import Limit, Limits
from celery_batcher.store.outlook import BatcherShare, KeyOutlook, LimitOutlook, Outlook

FREE = LimitOutlook(Limit(1, 100, 1000), 100, 0, 0, 0, 20.0, 0)
CALM = Outlook(
    0,
    WatcherCounts("w"),
    turn_ms=1000,
    limits=(FREE,),
    batchers=(BatcherShare("mine", 1, False, (0,), (0,)),),
)
OTHER = BatcherShare("other", 1, True, (30,), (90,))


KEY = KeyOutlook(
    100, 1000, 2, started=60, unclaimed=0, batches=1, next_cost=40, wait_ms=0, asked_ms=-1
)


def ask(cost: int = 10, limit: LimitOutlook = FREE, **changed: Any) -> list[tuple[str, Any]]:
    """Codes of what keeps an operation, and how long each lasts."""
    outlook = replace(CALM, **{"limits": (limit,), **changed})
    found = reasons(Question(outlook, (cost,), Limits(capacity=100), ("",)))
    return [(one.code, one.wait) for one in found]


def said(cost: int, limit: LimitOutlook, **changed: Any) -> str:
    outlook = replace(CALM, **{"limits": (limit,), **changed})
    return reasons(Question(outlook, (cost,), Limits(capacity=100), ("tokens",)))[0].text


def test_nothing_keeps_what_has_room_and_credit() -> None:
    assert ask() == []


def test_what_others_need_first_is_left_to_them() -> None:
    batchers = (*CALM.batchers, OTHER)

    assert ask(10, FREE, batchers=batchers) == [("others-first", None)]
    assert said(10, FREE, batchers=batchers) == (
        "100 tokens are free, and left to batchers whose turn it is: other (90)"
    )


def test_a_full_capacity_names_whose_unclaimed_batches_hold_it_and_what_is_owed() -> None:
    full = replace(FREE, started=60, unclaimed=30, debt=5, wait_ms=700)

    assert ask(10, full) == [("capacity", 0.7)]
    assert said(10, full, batchers=(*CALM.batchers, OTHER)) == (
        "the capacity of 100 tokens per 1 s has no room for 10: 60 started within the last 1 s, "
        "30 are held by released batches that no worker has claimed (other 30), "
        "5 are owed for what cost more than was said"
    )
    assert ask(10, replace(full, wait_ms=-1)) == [("capacity", None)]


def test_credit_comes_at_the_rate_of_the_capacity() -> None:
    assert ask(30) == [("credit", 0.1)]


@pytest.mark.parametrize(
    ("usable", "capacity", "text"),
    [
        (5, 100, "only 5 may be used now"),
        (5, 5, "it costs 10 tokens, more than the capacity of 5 per 1 s (the code says 100): it"),
    ],
)
def test_what_is_too_dear_says_for_what(usable: int, capacity: int, text: str) -> None:
    limit = replace(FREE, limit=Limit(1, capacity, 1000), usable=usable)

    assert ask(10, limit) == [("too-dear", None)]
    assert text in said(10, limit)


def test_what_is_dearer_than_the_capacity_ever_was_says_so() -> None:
    assert "more than the capacity of 100 per 1 s: it waits" in said(101, FREE)


def test_unclaimed_batches_of_a_watcher_use_up_its_share() -> None:
    row = WatcherCounts("w", open_batches=1)

    assert ask(10, FREE, watcher=row, open_cost=15) == [("watcher-unclaimed", None)]
    assert ask(5, FREE, watcher=row, open_cost=15) == []


def test_a_watcher_on_probe_has_one_operation_at_a_time() -> None:
    assert ask(1, watcher=WatcherCounts("w", on_probe=True, open_batches=1)) == [("probe", None)]
    assert ask(200, watcher=WatcherCounts("w", on_probe=True)) == [("too-dear", None), ("probe", 0)]


def test_a_restarted_store_lasts_as_long_as_a_hold() -> None:
    assert ask(10, FREE, guard_ms=1010) == [("restarted", 1.01)]


def test_nothing_keeps_an_operation_whose_key_has_room() -> None:
    assert ask(10, key=KEY) == []


def test_a_key_without_room_says_who_has_it() -> None:
    full = replace(KEY, started=65, unclaimed=30, next_cost=10, wait_ms=700, asked_ms=700)

    assert ask(10, key=full) == [("key-capacity", 0.7)]
    assert said(10, FREE, key=full) == (
        "the key_capacity of 100 per 1 s has no room for 10: 65 started within the last 1 s, "
        "30 are held by released batches that no worker has claimed"
    )
    assert ask(10, key=replace(full, wait_ms=-1)) == [("key-capacity", None)]


def test_an_operation_waits_with_the_next_one_of_its_key() -> None:
    full = replace(KEY, next_cost=50, wait_ms=700)

    assert ask(10, key=full) == [("key-capacity", 0.7)]
    assert "no room for the next of its key, of cost 50: 60 started" in said(10, FREE, key=full)


def test_what_its_key_may_never_have_says_so() -> None:
    low = replace(KEY, capacity=5, wait_ms=-1)

    assert ask(10, key=low) == [("key-too-dear", None)]
    assert said(10, FREE, key=low) == (
        "it costs 10, more than the key_capacity of 5 per 1 s: its key waits until that is raised"
    )
    assert said(1, FREE, key=low).startswith("the next of its key costs 40, more than the key_cap")


def test_a_key_may_have_as_many_batches_in_flight() -> None:
    busy = replace(KEY, capacity=None, batches=2, asked_ms=30_000)

    assert ask(10, key=busy) == [("key-concurrency", None)]
    assert said(10, FREE, key=busy) == (
        "2 batches of its key are released or run, as many as may (key_concurrency)"
    )


def test_a_key_that_has_room_again_may_have_to_wait_until_it_is_asked() -> None:
    waits = replace(KEY, asked_ms=900)

    assert ask(10, key=waits) == [("key-waits", 0)]
    assert ask(10, key=replace(waits, concurrency=0)) == [("key-waits", 0.9)]
    assert ask(10, key=replace(waits, guard_ms=400)) == [("restarted", 0.4)]


def test_all_keys_of_a_watcher_at_their_caps_are_told() -> None:
    full = replace(KEY, started=100, wait_ms=700, asked_ms=700)
    why = [("key-capacity", 0.7), ("all-keys", 0)]

    assert ask(10, key=full, keys_due_ms=300) == why
    assert ask(10, key=replace(full, concurrency=0), keys_due_ms=300)[1] == ("all-keys", 0.3)


def test_what_is_before_it_in_its_key_fills_whole_windows_of_that() -> None:
    key = replace(KEY, capacity=20, window_ms=5000)
    outlook = replace(CALM, limits=(), key=key)

    assert windows_of(Question(outlook, (10,), Limits(), ("",)), 31) == 10


def test_the_longest_of_several_counts_and_one_that_nobody_knows_spoils_it() -> None:
    found = reasons(
        Question(replace(CALM, paused_ms=500, closed_ms=900), (30,), Limits(capacity=100), ("",))
    )

    assert longest(found) == 0.9
    assert longest(reasons(Question(replace(CALM, paused_ms=-1), (1,), Limits(), ("",)))) is None


@pytest.mark.parametrize(("before", "seconds"), [(0, 0), (90, 0), (91, 1), (190, 1), (191, 2)])
def test_what_is_before_it_fills_whole_windows(before: int, seconds: float) -> None:
    assert windows_of(Question(CALM, (10,), Limits(capacity=100), ("",)), before) == seconds


def test_the_eta_is_that_of_the_slowest_window_of_the_first_dimension() -> None:
    limits = (FREE, replace(FREE, limit=Limit(1, 300, 60_000), usable=300, credit=0.0))
    further = replace(FREE, limit=Limit(2, 1, 1000), usable=0)
    outlook = replace(CALM, buffered=600, buffered_cost=600, limits=(*limits, further))

    assert eta_of(outlook, "mine", turns=True) == 120.0
    assert eta_of(replace(outlook, limits=(FREE,)), "mine", turns=True) == pytest.approx(5.8)
    assert eta_of(replace(outlook, turn_ms=0), "mine", turns=True) is None
    assert eta_of(replace(outlook, turn_ms=0), "mine", turns=False) == 120.0


def test_times_are_told_in_seconds_or_minutes() -> None:
    assert [lasting(ms) for ms in (5, 1000, 61_234, 3_600_000)] == [
        "0.005 s",
        "1 s",
        "61.2 s",
        "60 min",
    ]
