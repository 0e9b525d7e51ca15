"""Operations wait and move in blocks; nothing that a user sees depends on where these end.

`builders.read` checks every block of every claim: its counts, and that it is not too large.
"""

from __future__ import annotations

import pytest

from builders import Bench, ids, op, read
from celery_batcher.store.options import WatcherOptions

MEBIBYTE = 1024 * 1024


@pytest.mark.parametrize("size", [1, 7, 99, 100, 101, 250])
def test_batches_of_any_size_keep_the_order_of_a_key(bench: Bench, size: int) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=size))
    names = [f"o{at:03}" for at in range(350)]
    bench.put(*(op(name) for name in names[:230]))
    bench.put(*(op(name) for name in names[230:]))

    batches = bench.drain()

    assert [id for batch in batches for id in batch] == names
    assert {len(batch) for batch in batches[:-1]} <= {size}


def test_the_operations_of_several_blocks_come_back_in_order(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=130, max_attempts=0))
    names = [f"o{at:03}" for at in range(260)]
    bench.put(*(op(name) for name in names))
    first, second = bench.released(), bench.released()
    bench.claim(second)
    bench.settle(second, "r")
    bench.claim(first)
    bench.settle(first, "g")

    assert [id for batch in bench.drain() for id in batch] == names


def test_every_operation_has_a_sequence_number_of_its_own(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1000), WatcherOptions("v", max_batch_size=1000))
    keyed = [op(f"o{at}", key=f"k{at % 2}") for at in range(300)]
    bench.put(*keyed)
    bench.put(*keyed, watcher="v")

    batches = [read(bench.claim(bench.released()).blocks) for _ in range(2)]

    assert len({one.sequence for batch in batches for one in batch}) == 600


def test_a_batch_of_many_blocks_is_not_larger_than_a_mebibyte(bench: Bench) -> None:
    bench.begin()
    entry = op("o", payload=b"x" * 12_000)
    for _ in range(2):
        bench.put(*[entry] * 50)

    batch = bench.released()

    assert batch.trigger == "size"
    assert batch.operations == MEBIBYTE // len(entry)
    assert len(ids(bench.claim(batch))) == batch.operations
    assert bench.released().operations == 100 - batch.operations


def test_a_keys_turn_is_ten_operations_at_most_however_cheap(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=40))
    bench.put(*(op(f"cheap{at}", key="cheap") for at in range(30)))
    bench.put(*(op(f"dear{at}", key="dear", cost=100) for at in range(10)))

    order = [one.key for one in read(bench.claim(bench.released()).blocks)]

    assert max(len(turn) for turn in "".join(key[0] for key in order[:20]).split("d")) == 10


def test_a_keys_turn_is_ten_average_costs_at_most(bench: Bench) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=40))
    bench.put(*(op(f"dear{at}", key="a", cost=100) for at in range(6)))
    bench.put(*(op(f"cheap{at}", key="b") for at in range(60)))

    order = [one.key for one in read(bench.claim(bench.released()).blocks)]

    assert order[:3] == ["a", "b", "b"]


def test_a_batch_is_cut_where_the_capacity_ends_within_a_block(bench: Bench) -> None:
    bench.begin(capacity=25, flush_ms=1000)
    bench.put(*(op(f"o{at}", cost=2) for at in range(20)))

    batch = bench.released()

    assert (batch.operations, batch.cost, batch.trigger) == (12, 24, "capacity")
    assert ids(bench.claim(batch)) == [f"o{at}" for at in range(12)]
    assert bench.store.counts().waiting_cost == 16
