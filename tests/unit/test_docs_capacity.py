"""The timelines of docs/capacity.md and docs/how-it-works.md are what the store does."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from builders import BACKFILL, NORMAL, START_MS, Bench, MicroClock, memory_bench, op, read
from celery_batcher import ProvisionedResource
from celery_batcher.config import BATCHER_OPTIONS
from celery_batcher.store.base import Charge, Released
from celery_batcher.store.counts import LimitCounts
from celery_batcher.store.options import Limits, ResourceOptions

DOCS = Path(__file__).parents[2] / "docs"

Act = Callable[[Bench], str]
"""Does something; returns what its row must say."""
Column = Callable[[tuple[LimitCounts, ...]], int]

COLUMNS: Mapping[str, Column] = {
    "usable": lambda limits: limits[0].usable,
    "held": lambda limits: limits[0].held,
    "free": lambda limits: max(0, limits[0].usable - limits[0].held),
    "owed": lambda limits: limits[0].debt,
    "held of 1 s": lambda limits: limits[0].held,
    "held of 5 s": lambda limits: limits[1].held,
    "requests held": lambda limits: limits[0].held,
    "tokens held": lambda limits: limits[1].held,
}


def table(heading: str, file: str = "capacity.md") -> list[dict[str, str]]:
    """The rows of the first table under a heading, by name of column."""
    text = (DOCS / file).read_text()
    section = re.split(r"\n#+ ", text.partition(f" {heading}\n")[2])[0]
    head, _, *rows = (line for line in section.splitlines() if line.startswith("|"))
    names = _cells(head)
    return [dict(zip(names, _cells(row), strict=True)) for row in rows]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def replay(bench: Bench, rows: list[dict[str, str]], acts: list[Act]) -> None:
    """Act at the time of each row; the store must then have the row's numbers."""
    assert len(rows) == len(acts)
    for row, act in zip(rows, acts, strict=True):
        bench.clock.us = (START_MS + int(number(row["time"]))) * 1000
        assert act(bench) in row["what happens"]
        limits = bench.store.counts().limits
        told = {name: number(cell) for name, cell in row.items() if name in COLUMNS}
        assert told == {name: COLUMNS[name](limits) for name in told}, row


# Acts


def release(name: str, id: str | None = None) -> Act:
    def act(bench: Bench) -> str:
        answer = bench.release(id or name)
        assert isinstance(answer, Released), answer
        return f"{name} is released"

    return act


def refuse(reason: str, name: str) -> Act:
    words = {
        "capacity": f"{name} waits for room",
        "credit": f"{name} waits for credit",
        "paused": f"paused: {name} is not released",
        "closed": f"closed: {name} is not released",
        "empty": "nothing is released",
    }

    def act(bench: Bench) -> str:
        assert bench.refused() == reason
        return words[reason]

    return act


def claim(id: str, state: str = "claimed") -> Act:
    words = {"claimed": "is claimed", "wait": "may not start", "recalled": "is recalled"}

    def act(bench: Bench) -> str:
        assert bench.claim(id).state == state
        return f"{id} {words[state]}"

    return act


def pause(ms: int) -> Act:
    def act(bench: Bench) -> str:
        assert bench.store.pause(ms)
        return "the batcher is paused"

    return act


def throttle(id: str | None = None, ms: int = 2000) -> Act:
    """What ``raise Throttled(retry_after=...)`` in a handler comes to."""

    def act(bench: Bench) -> str:
        assert bench.store.shut(ms)
        assert id is None or bench.settle(id, "g")
        return f"closed until {bench.store.counts().now_ms - START_MS + ms:,}"

    return act


def set_capacity(capacity: int, word: str, then: Act | None = None) -> Act:
    def act(bench: Bench) -> str:
        assert bench.store.set_capacity([capacity])
        said = f"the capacity is {word} to {capacity:,}"
        return f"{said}, and {then(bench)}" if then else said

    return act


def charge(id: str, cost: int, said: int = 400) -> Act:
    def act(bench: Bench) -> str:
        assert bench.store.charge(id, "n", 1, Charge((cost - said,)))
        return f"{id} is charged {cost}"

    return act


def nothing(bench: Bench) -> str:
    return ""


# Resources


def limits_of(resource: ProvisionedResource) -> Limits:
    """Limits with the defaults of a batcher's options."""
    first, *others = resource.limits()
    return Limits(first.capacity, first.window_ms, tuple(others), resource.options())


def used_before(resource: ProvisionedResource, *entries: bytes) -> Bench:
    """A store whose resource was used long before, and operations that wait."""
    clock = MicroClock()
    clock.us -= 3_600_000_000
    bench = memory_bench(clock)
    bench.limits = limits_of(resource)
    bench.begin()
    bench.put(op("before", cost=0))
    bench.run()
    clock.us = START_MS * 1000
    assert bench.store.take_turn(bench.token, 3_600_000).mine
    bench.put(*entries)
    return bench


def costing(cost: int, *names: str) -> list[bytes]:
    return [op(name, cost=cost) for name in names]


def test_the_defaults_are_those_that_the_tables_have() -> None:
    defaults = {name: option.default for name, option in BATCHER_OPTIONS.items()}

    assert defaults["flush_interval"] == 0.1
    assert defaults["start_grace"] == 0.01
    assert (defaults["weight"], defaults["floor"], defaults["backfill_floor"]) == (1, 0, 0.05)
    limits = limits_of(ProvisionedResource(1_000))
    assert (limits.flush_ms, limits.hold_ms) == (100, 1010)


# Timelines


def test_one_capacity_is_held_from_release_until_a_window_after_the_claim() -> None:
    bench = used_before(ProvisionedResource(1_000), *costing(400, "A", "B", "C", "D"))

    replay(
        bench,
        table("One capacity"),
        [
            release("A"),
            claim("A"),
            refuse("credit", "B"),
            release("B"),
            claim("B"),
            refuse("capacity", "C"),
            release("C"),
            claim("C"),
            release("D"),
        ],
    )


def test_the_timeline_of_how_it_works_is_what_happens() -> None:
    bench = used_before(ProvisionedResource(1_000), *costing(400, "A", "B", "C", "D"))

    replay(
        bench,
        table("A timeline", "how-it-works.md"),
        [
            release("A"),
            claim("A"),
            release("B"),
            claim("B"),
            refuse("capacity", "C"),
            release("C"),
            claim("C"),
            refuse("capacity", "D"),
            release("D"),
        ],
    )


def test_a_lowered_capacity_binds_what_was_released_before() -> None:
    bench = used_before(ProvisionedResource(1_000), *costing(400, "A", "B", "C"))

    replay(
        bench,
        table("A capacity that is lowered"),
        [
            release("A"),
            claim("A"),
            release("B"),
            set_capacity(500, "lowered"),
            claim("B", "wait"),
            claim("B"),
            refuse("capacity", "C"),
            release("C"),
            set_capacity(300, "lowered"),
            claim("C", "recalled"),
            refuse("empty", "C"),
            set_capacity(800, "raised", release("C")),
        ],
    )


def test_every_window_must_have_room_and_credit() -> None:
    resource = ProvisionedResource((100, 250), window=(1.0, 5.0))
    bench = used_before(resource, *costing(100, "A", "B", "C"))

    replay(
        bench,
        table("Several windows"),
        [
            release("A"),
            claim("A"),
            refuse("credit", "B"),
            release("B"),
            claim("B"),
            refuse("capacity", "C"),
            release("C"),
        ],
    )


def test_what_lacks_one_dimension_takes_of_none() -> None:
    bench = used_before(
        ProvisionedResource({"requests": 10, "tokens": 1_000}),
        *(op(f"{tokens}", cost=1, further=[tokens]) for tokens in (700, 500, 10, 10, 10)),
    )

    replay(
        bench,
        table("Dimensions"),
        [
            release("A"),
            claim("A"),
            refuse("capacity", "B"),
            release("B"),
            claim("B"),
            release("C"),
        ],
    )


def test_a_pause_and_a_429_bind_what_was_released_before() -> None:
    bench = used_before(ProvisionedResource(1_000), *costing(400, "A", "B"))

    replay(
        bench,
        table("Pause and 429"),
        [
            release("A"),
            pause(500),
            claim("A", "wait"),
            refuse("paused", "B"),
            claim("A"),
            release("B"),
            claim("B"),
            throttle("B"),
            refuse("closed", "B"),
            release("B", id="B again"),
        ],
    )


def test_an_adaptive_capacity_is_halved_and_comes_back() -> None:
    replay(
        used_before(ProvisionedResource(1_000, adaptive=True)),
        table("After a 429: adaptive"),
        [nothing, throttle(), *[nothing] * 3, throttle(), *[nothing] * 4],
    )


def test_a_raised_capacity_comes_in_the_steps_of_its_ramp() -> None:
    replay(
        used_before(ProvisionedResource(300, ramp=(100, 5.0))),
        table("A capacity that is raised: ramp"),
        [set_capacity(550, "raised"), *[nothing] * 4, set_capacity(200, "lowered")],
    )


def test_a_charge_above_the_estimate_is_owed_and_one_below_frees_at_once() -> None:
    bench = used_before(ProvisionedResource(1_000), *costing(400, "A", "B"))

    replay(
        bench,
        table("Costs that turn out otherwise: debt"),
        [
            release("A"),
            claim("A"),
            charge("A", 700),
            refuse("capacity", "B"),
            release("B"),
            claim("B"),
            charge("B", 100),
        ],
    )


# Shares


GRID = {"capacity": 1_000, "window_ms": 990}
"""With its grace, holds end at whole flush intervals."""
TOLERANCE = 20


def served(batchers: Sequence[tuple[ResourceOptions, set[int]]]) -> list[dict[int, float]]:
    """What batchers on one resource get of 1,000, by priority, if they always have such work."""
    clock, warm, seconds = MicroClock(), 2, 10
    first = memory_bench(clock)
    assert first.reopen is not None
    benches: list[Bench] = []
    for number, (options, priorities) in enumerate(batchers):
        one = first.reopen(f"batcher{number}", "resource").begin(resource=options, **GRID)
        for priority in priorities:
            one.put_many([f"{priority}:{n}" for n in range(1_300)], priority=priority, cost=10)
        benches.append(one)
    before = [Counter[int]() for _ in benches]
    for step in range(10 * (warm + seconds)):
        for bench, costs in zip(benches, before, strict=True):
            for priority, cost in _flush(bench):
                costs[priority] += cost if step >= 10 * warm else 0
        clock.advance(0.1)
    total = sum(sum(costs.values()) for costs in before)
    assert total >= 0.98 * 1_000 * seconds
    return [{at: 1_000 * cost / total for at, cost in costs.items()} for costs in before]


def _flush(bench: Bench) -> Iterator[tuple[int, int]]:
    """Release and start all that may be; the priorities and costs of batches."""
    while isinstance(batch := bench.release(), Released):
        claim = bench.claim(batch)
        assert bench.settle(batch)
        yield read(claim.blocks)[0].priority, batch.cost


@pytest.mark.parametrize("heading", ["Shares of several batchers", "Shares when one is idle"])
def test_batchers_get_their_floors_and_the_rest_by_weight(heading: str) -> None:
    rows = table(heading)

    got = served(
        [
            (
                ResourceOptions(weight=int(row["weight"]), floor=number(row["floor"])),
                {NORMAL} if row["has work"] == "yes" else set(),
            )
            for row in rows
        ]
    )

    told = [number(row["gets of 1,000"]) for row in rows]
    assert [one.get(NORMAL, 0) for one in got] == pytest.approx(told, abs=TOLERANCE)


WAITING: Mapping[str, list[set[int]]] = {
    "others only": [{NORMAL}],
    "others and back-fills": [{NORMAL, BACKFILL}],
    "others, and back-fills of two more batchers": [{NORMAL}, {BACKFILL}, {BACKFILL}],
    "back-fills only": [{BACKFILL}],
}


def test_back_fills_get_what_others_leave_and_their_floor() -> None:
    rows = table("Back-fills")

    assert [row["what waits"] for row in rows] == list(WAITING)
    for row in rows:
        got = served([(ResourceOptions(), one) for one in WAITING[row["what waits"]]])
        for priority, column in ((NORMAL, "others get"), (BACKFILL, "back-fills get")):
            total = sum(one.get(priority, 0) for one in got)
            assert total == pytest.approx(number(row[column]), abs=TOLERANCE), row
