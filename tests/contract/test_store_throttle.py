"""How long a resource stays closed whose store asks for less and does not say for how long."""

from __future__ import annotations

from builders import Bench

MOST = 60_000


def test_the_time_doubles_each_time_it_asks_again_soon(bench: Bench) -> None:
    bench.begin(capacity=10)
    times = []
    for _ in range(8):
        times.append(bench.store.throttle(MOST, 0.0))
        bench.clock.advance(times[-1] / 1000 + 0.5)

    assert times == [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]


def test_it_starts_anew_once_it_was_open_for_as_long_as_it_was_closed(bench: Bench) -> None:
    bench.begin(capacity=10)
    bench.store.throttle(MOST, 0.0)
    bench.clock.advance(1)
    assert bench.store.throttle(MOST, 0.0) == 2000

    bench.clock.advance(2 + 1.999)
    assert bench.store.throttle(MOST, 0.0) == 4000
    bench.clock.advance(4 + 4)
    assert bench.store.throttle(MOST, 0.0) == 1000


def test_workers_that_are_told_the_same_at_the_same_time_count_once(bench: Bench) -> None:
    bench.begin(capacity=10)
    bench.store.throttle(MOST, 0.0)
    bench.clock.advance(0.4)

    assert [bench.store.throttle(MOST, 0.0) for _ in range(3)] == [600] * 3
    assert bench.refused() == "closed"


def test_jitter_leaves_out_a_part_of_it_and_is_not_inherited(bench: Bench) -> None:
    bench.begin(capacity=10)

    assert bench.store.throttle(MOST, 0.25) == 750
    bench.clock.advance(0.75)
    assert bench.store.throttle(MOST, 0.5) == 1000
