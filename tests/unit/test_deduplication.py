"""dedupe_key and dedupe_for, from the producer to the handler, on a store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from celery_batcher import Batcher, ConfigurationError, Watcher
from in_memory import InMemory


@pytest.fixture
def app() -> Iterator[InMemory]:
    one = InMemory()
    yield one
    one.close()


@pytest.fixture
def seen() -> list[Any]:
    return []


@pytest.fixture
def batcher(app: InMemory) -> Batcher:
    return app.batcher(flush_mode="tick")


@pytest.fixture
def write(batcher: Batcher, seen: list[Any]) -> Watcher:
    return batcher.watcher(name="write")(lambda batch: seen.extend(op.payload for op in batch))


def test_of_operations_with_the_same_key_the_first_is_handled(
    app: InMemory, batcher: Batcher, write: Watcher, seen: list[Any]
) -> None:
    first = write.enqueue(1, dedupe_key="order-17", dedupe_for=60)
    second = write.enqueue(2, dedupe_key="order-17", dedupe_for=60)
    write.enqueue(3, dedupe_key="order-18", dedupe_for=60)
    app.tick(batcher, 3)

    assert seen == [1, 3]
    assert first == second
    status = batcher.status()
    assert (status.duplicates, status.done, batcher.needs_capacity()) == (1, 2, 0)


def test_the_time_counts_from_the_arrival_of_the_first(
    app: InMemory, batcher: Batcher, write: Watcher, seen: list[Any]
) -> None:
    for at in range(4):
        write.enqueue(at, dedupe_key="k", dedupe_for=timedelta(seconds=60))
        app.tick(batcher)
        app.clock.advance(29.9)

    assert seen == [0, 2]


def test_a_duplicates_caller_can_ask_what_became_of_the_first(
    app: InMemory, batcher: Batcher, write: Watcher
) -> None:
    batcher.pause(None)
    write.enqueue({"n": 1}, dedupe_key="k")
    id = write.enqueue({"n": 2}, dedupe_key="k")
    app.tick(batcher)

    assert batcher.explain(id).state == "waiting"
    assert batcher.operations_in_buffer() == 1


def test_ids_follow_from_watcher_and_key(batcher: Batcher, write: Watcher) -> None:
    other = batcher.watcher(name="writ")(lambda batch: None)

    one = write.operation(1, dedupe_key="order")

    assert one.id == write.operation(2, dedupe_key="order").id == "dedupe-" + one.id[7:]
    assert one.id != other.operation(1, dedupe_key="eorder").id
    assert one.id != write.operation(1, dedupe_key="order2").id
    assert len(write.operation(1, dedupe_key="x" * 10_000).id) == len(one.id)


def test_enqueue_many_takes_a_key_for_each_and_none_for_some(
    app: InMemory, batcher: Batcher, write: Watcher, seen: list[Any]
) -> None:
    def key(n: int) -> str | None:
        return None if n % 3 == 0 else f"k{n % 3}"

    assert write.enqueue_many(range(9), dedupe_key=key, dedupe_for=5, pack=2) == 9
    assert write.enqueue_many(range(9), dedupe_key="one for all") == 9
    app.tick(batcher, 3)

    assert seen == [0, 1, 2, 3, 6, 0]
    assert batcher.status().duplicates == 12


def test_costs_of_several_dimensions_and_keys_stay_what_they_were(
    app: InMemory, batcher: Batcher
) -> None:
    found: list[Any] = []
    watcher = batcher.watcher(name="plain")(found.extend)
    watcher.enqueue({"n": 1}, dedupe_key="d", dedupe_for=2.5, cost=3, key="k", priority="high")
    app.tick(batcher, 2)

    (one,) = found
    assert (one.payload, one.cost, one.key, one.priority) == ({"n": 1}, 3, "k", "high")
    assert one.dedupe_for == 2.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dedupe_for": 5}, "says nothing without a dedupe_key"),
        ({"dedupe_key": "k", "id": "i"}, "one of both"),
        ({"dedupe_key": ""}, "dedupe_key"),
        ({"dedupe_key": 17}, "dedupe_key 17"),
        ({"dedupe_key": "k", "dedupe_for": -1}, "seconds from 0"),
        ({"dedupe_key": "k", "dedupe_for": timedelta(days=400)}, "a year at most"),
    ],
)
def test_what_makes_no_sense_is_refused(
    write: Watcher, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        write.enqueue(1, **arguments)
    many = {**arguments, "id": str} if "id" in arguments else arguments
    with pytest.raises(ConfigurationError, match=said):
        write.enqueue_many([1], **many)
    assert write.batcher.operations_in_buffer() == 0
