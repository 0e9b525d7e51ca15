"""The timelines of docs/costs.md are what the store does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import START_MS, Bench, ids, memory_bench, op
from celery_batcher.clock import ManualClock
from celery_batcher.estimates import rounded
from celery_batcher.store.base import Charge, Refused, Released
from celery_batcher.store.options import Limit, ResourceOptions, WatcherOptions

MANUAL = Path(__file__).parents[2] / "docs" / "costs.md"


def timeline(name: str) -> list[list[str]]:
    """The rows of a table of the manual."""
    text = MANUAL.read_text().split(f"<!-- timeline: {name} -->\n\n")[1].split("\n\n")[0]
    return [[one.strip() for one in row.strip("|").split("|")] for row in text.splitlines()[2:]]


@pytest.fixture
def bench() -> Bench:
    return memory_bench(ManualClock())


class Story:
    """What the rows of a table say, done: a batch has the name of its operation."""

    def __init__(self, bench: Bench, said: dict[str, int]) -> None:
        self.bench, self.said = bench, said

    def tell(self, ms: int, what: str) -> None:
        self.bench.clock.advance((START_MS + ms - self.bench.clock.now_ms()) / 1000)
        if charged := re.match(r"(\w) is charged (\d+)", what):
            name, actual = charged.groups()
            more = int(actual) - self.said[name]
            assert self.bench.store.charge(name, "n", 1, Charge((more,)))
        elif released := re.search(r"(\w)(?: of cost \d+)? is released, and claimed", what):
            name = released[1]
            assert isinstance(self.bench.release(name), Released), what
            assert ids(self.bench.claim(name)) == [name]
        else:
            assert isinstance(self.bench.release(), Refused), what


def test_every_limit_of_every_dimension_is_kept_as_in_the_table(bench: Bench) -> None:
    bench.begin(
        WatcherOptions("w", max_batch_size=1),
        capacity=10,
        others=(Limit(2, 1000, 1000),),
        resource=ResourceOptions(dimensions=("requests", "tokens")),
        flush_ms=100,
    )
    bench.put(*(op(name, cost=1, further=[400]) for name in "ABC"))
    story = Story(bench, {})
    for ms, what, *held in timeline("dimensions"):
        story.tell(int(ms), what)
        assert [one.held for one in bench.store.counts().limits] == list(map(int, held)), what


@pytest.mark.parametrize(
    ("name", "said"), [("less", {"A": 600, "B": 600}), ("debt", {"A": 100, "B": 200})]
)
def test_charges_free_and_owe_as_in_the_table(
    bench: Bench, name: str, said: dict[str, int]
) -> None:
    bench.begin(WatcherOptions("w", max_batch_size=1), capacity=1000, flush_ms=1000)
    bench.put(*(op(one, cost=cost) for one, cost in said.items()))
    story = Story(bench, said)
    for ms, what, held, debt in timeline(name):
        story.tell(int(ms), what)
        (limit,) = bench.store.counts().limits
        assert (limit.held, limit.debt) == (int(held), int(debt)), what


def test_estimates_are_learned_as_in_the_table(bench: Bench) -> None:
    bench.begin().put(op("A"))
    batch = bench.released()
    bench.claim(batch)
    _, *rows = timeline("estimates")
    for number, (charges, real, mean, stated) in enumerate(rows, 1):
        lessons = (("", (int(real),)),) * int(charges)
        bench.store.charge(batch.id, "n", number, Charge((), lessons))
        (found,) = bench.store.estimates("w").values()
        assert (f"{found[0]:.2f}", str(*rounded(found, None))) == (mean, stated)
