"""A dear urgent operation at the cap of its key, and back-fills that a floor covers."""

from __future__ import annotations

from builders import BACKFILL, Bench, op
from celery_batcher.store.options import ResourceOptions, WatcherOptions

CAPPED = WatcherOptions("w", key_capacity=10, key_window_ms=1000, max_batch_size=1)
FLOOR = ResourceOptions(backfill_floor=0.9)


def begin(bench: Bench) -> None:
    """Key k holds 3, its next operation is dear, its back-fills have their floor at any time."""
    bench.begin(CAPPED, capacity=1000, flush_ms=100, resource=FLOOR)
    bench.put(*(op(f"b{n}", cost=3, key="k", priority=BACKFILL) for n in range(6)))
    assert bench.run() == ["b0"]
    bench.clock.advance(0.5)
    bench.put(op("dear", cost=9, key="k"), op("next", cost=1, key="k"))


def test_back_fills_of_a_key_do_not_overtake_what_waits_for_its_cap_again_and_again(
    bench: Bench,
) -> None:
    begin(bench)
    ran = [one for (one,) in bench.drain()]
    while "dear" not in ran:
        bench.clock.advance(0.51)
        ran += [one for (one,) in bench.drain()]

    assert ran == ["b1", "b2", "dear"]


def test_they_go_on_once_it_has_had_its_batch(bench: Bench) -> None:
    begin(bench)
    ran: list[str] = []
    for _ in range(12):
        ran += [one for (one,) in bench.drain()]
        bench.clock.advance(0.51)

    assert ran[:3] == ["b1", "b2", "dear"]
    assert sorted(ran) == ["b1", "b2", "b3", "b4", "b5", "dear", "next"]


def test_they_go_on_when_the_caps_are_taken_away(bench: Bench) -> None:
    begin(bench)
    bench.drain()
    bench.clock.advance(1.01)
    bench.store.set_capacity([2])
    assert bench.refused() == "empty"

    bench.store.configure(bench.limits, [WatcherOptions("w")])
    bench.store.set_capacity([1000])
    bench.clock.advance(0.3)

    ran = [one for batch in bench.drain() for one in batch]
    bench.clock.advance(1.01)
    ran += [one for batch in bench.drain() for one in batch]
    assert sorted(ran) == ["b3", "b4", "b5", "dear", "next"]


def test_those_of_other_keys_go(bench: Bench) -> None:
    begin(bench)
    bench.drain()
    bench.put(op("other", cost=3, key="l", priority=BACKFILL))

    assert bench.drain() == [["other"]]
