"""The memory store decides exactly as the Lua scripts do, and both as the books of this module.

Random scripts of acts run on both stores with equal clocks: every answer and all counts must be
equal, and the counts must be those that follow from the answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from builders import Bench, Read, memory_bench, op, read, read_entries, redis_bench
from celery_batcher.clock import ManualClock
from celery_batcher.store.backfills import Chunk
from celery_batcher.store.base import (
    Admission,
    Arrival,
    Charge,
    Claim,
    Died,
    Leased,
    Released,
    Settlement,
    Staged,
)
from celery_batcher.store.counts import Counts
from celery_batcher.store.options import Limit, Limits, ResourceOptions, WatcherOptions

WATCHERS = ("u", "v")
MEBIBYTE = 1024 * 1024


@dataclass
class Books:
    """What the counts must be, worked out from the answers alone."""

    max_attempts: dict[str, int] = field(default_factory=dict)
    bisect: dict[str, bool] = field(default_factory=dict)
    admitted: dict[str, tuple[int, int]] = field(default_factory=dict)
    staged: int = 0
    staged_cost: int = 0
    settled: int = 0
    settled_cost: int = 0
    gone_cost: int = 0
    done: int = 0
    dead: int = 0
    dead_cost: int = 0
    expired: int = 0
    aside: int = 0
    open: dict[str, Released] = field(default_factory=dict)
    running: dict[str, tuple[Released, list[Read]]] = field(default_factory=dict)
    holds: dict[str, tuple[int, int]] = field(default_factory=dict)
    limited: set[str] = field(default_factory=set)
    charged: bool = False

    def take_out(self, id: str, outcomes: str) -> tuple[Died, ...]:
        """A batch was settled or expired; returns what died."""
        died = self.keep(id, outcomes)
        del self.running[id]
        return died

    def keep(self, id: str, outcomes: str) -> tuple[Died, ...]:
        """Outcomes of a batch were recorded: only what is undecided stays; returns what died."""
        batch, entries = self.running[id]
        kept: list[Read] = []
        died: list[Died] = []
        for at, one in enumerate(entries):
            outcome = outcomes if len(outcomes) == 1 else outcomes[at]
            tries = self.max_attempts[batch.watcher]
            if outcome in "ra" and tries and one.attempt >= tries:
                outcome = "x"
            if outcome in "dx":
                self.settled, self.settled_cost = self.settled + 1, self.settled_cost + one.cost
            if outcome == "d":
                self.done += 1
            if outcome == "x":
                self.dead, self.dead_cost = self.dead + 1, self.dead_cost + one.cost
                died.append(Died(one.id, one.attempt))
            if outcome == "-":
                kept.append(one)
        cost = sum(one.cost for one in kept)
        self.running[id] = replace(batch, operations=len(kept), cost=cost), kept
        return tuple(died)

    def check(self, counts: Counts) -> None:
        """Compare with what a store says."""
        running = [batch for batch, _ in self.running.values()]
        opened = list(self.open.values())
        released = sum(batch.operations for batch in (*running, *opened))
        released_cost = sum(batch.cost for batch in (*running, *opened))
        held = sum(cost for ends, cost in self.holds.values() if ends > counts.now_ms)
        expected = {
            "admitted": sum(n for n, _ in self.admitted.values()),
            "admitted_cost": sum(cost for _, cost in self.admitted.values()),
            "admitted_messages": len(self.admitted),
            "open": sum(batch.operations for batch in opened),
            "open_cost": sum(batch.cost for batch in opened),
            "open_batches": len(opened),
            "running": sum(batch.operations for batch in running),
            "running_cost": sum(batch.cost for batch in running),
            "running_batches": len(running),
            "done": self.done,
            "dead": self.dead,
            "dead_cost": self.dead_cost,
            "expired_batches": self.expired,
            "set_aside": self.aside,
        }
        if not self.charged:  # else it is not what the answers say
            expected["held"] = held + sum(one.cost for one in opened if one.id in self.limited)
        assert {name: getattr(counts, name) for name in expected} == expected
        assert counts.waiting + counts.delayed == self.staged - self.settled - released
        unreleased_cost = self.staged_cost - self.settled_cost - released_cost
        assert counts.waiting_cost + counts.delayed_cost == unreleased_cost


def comparable(answer: Any) -> Any:
    """An answer without what the stores may do in their own way: how they number and lay blocks."""
    if isinstance(answer, Claim):
        operations = [replace(one, sequence=0) for one in read(answer.blocks)]
        return answer.state, operations, answer.remaining_ms
    return answer


class Pair:
    """Both stores, given the same acts."""

    def __init__(self, client: Redis, prefix: str, limits: Limits) -> None:
        self.clock = ManualClock()
        self.memory: Bench = memory_bench(self.clock)
        self.redis: Bench = redis_bench(self.clock, client, prefix)
        self.limits = limits
        self.books = Books()
        self.batches: list[str] = []
        self.commits: dict[str, int] = {}
        self.messages: list[tuple[str, str, bytes]] = []
        self.numbers = count()
        self.redis.store.audit_bounds = (2, 10**6, 100)  # type: ignore[attr-defined]
        self.redis.store.seek_bounds = (2, 10**6)  # type: ignore[attr-defined]
        self.configure(20, {"max_batch_size": 3})
        self.neighbours = [bench.reopen("neighbour", "resource") for bench in self.benches]
        self.neighbour(0, 1)
        self.both("take_turn", "turn", 10**9)

    @property
    def benches(self) -> tuple[Any, Any]:
        return self.memory, self.redis

    def neighbour(self, cost: int, n: int) -> None:
        """Another batcher on the resource has so many operations, and runs what it may."""
        number = next(self.numbers)
        answers = []
        for bench in self.neighbours:
            bench.limits = replace(self.limits, capacity=20)
            bench.begin(WatcherOptions("w"))
            bench.put_many([f"n{number}.{at}" for at in range(n)], cost=cost)
            answer = bench.release(f"n{number}")
            claim = bench.claim(f"n{number}")
            answers.append((answer, claim.state))
        assert answers[0] == answers[1]
        if answers[0][1] == "claimed":
            until = self.clock.now_ms() + self.limits.hold_ms
            self.books.holds[f"n{number}"] = (until, answers[0][0].cost)
        self.books.charged |= answers[0][1] == "wait"  # it holds, and nobody here counts it

    def both(self, act: str, *args: Any, **kwargs: Any) -> Any:
        """Do one act on both stores, and compare."""
        ours = getattr(self.memory.store, act)(*args, **kwargs)
        theirs = getattr(self.redis.store, act)(*args, **kwargs)
        if act == "take_turn":
            ours, theirs = (replace(one, lanes=tuple(sorted(one.lanes))) for one in (ours, theirs))
        assert comparable(ours) == comparable(theirs), f"{act}{args}: {ours}, Redis: {theirs}"
        return ours

    def check(self) -> None:
        self.books.check(self.both("counts"))
        self.both("meters")

    # Acts, named as in the strategy

    def configure(self, capacity: int | None, options: dict[str, Any]) -> None:
        self.limits = replace(self.limits, capacity=capacity)
        watchers = [WatcherOptions(name, **options) for name in WATCHERS]
        self.books.max_attempts.update({one.name: one.max_attempts for one in watchers})
        self.books.bisect.update({one.name: one.bisect for one in watchers})
        self.both("configure", self.limits, watchers)

    def admit(self, watcher: str, ops: list[dict[str, Any]], buffer_size: int) -> None:
        numbered = [(f"o{next(self.numbers)}", one) for one in ops]
        data = b"".join(
            op(one.get("id") or id, enqueued_ms=self.clock.now_ms(),
               registered=bool(one.get("id")), **{k: v for k, v in one.items() if k != "id"})
            for id, one in numbered
        )  # fmt: skip
        message = Admission(
            f"m{next(self.numbers)}", watcher, len(ops), sum(one["cost"] for one in ops)
        )
        if self.both("admit", [message], buffer_size).messages:  # it is neither full nor drained
            self.books.admitted[message.id] = (message.operations, message.cost)
            self.messages.append((message.id, watcher, data))

    def stage(self, which: int, token: str = "turn") -> None:
        if not self.messages:
            return
        id, watcher, data = self.messages[which % len(self.messages)]
        before = self.memory.store.counts()
        staged: Staged = self.both("stage", token, [Arrival(id, watcher, data)], "")
        if not staged.lost:
            self.books.admitted.pop(id, None)
            self.books.staged += staged.operations
            after = self.memory.store.counts()
            self.books.staged_cost += after.waiting_cost - before.waiting_cost
            self.books.aside += staged.set_aside

    def put(self, watcher: str, ops: list[dict[str, Any]]) -> None:
        self.admit(watcher, ops, 10**6)
        self.stage(-1)

    def garbage(self, data: bytes) -> None:
        id = f"m{next(self.numbers)}"
        good = len(read(bytes(8) + data)) if data.startswith(b"\0\0\0\x28") else 0
        staged = self.both("stage", "turn", [Arrival(id, "u", data)], "")
        assert good == staged.operations == 0
        self.books.aside += staged.set_aside

    def withdraw(self, which: int) -> None:
        if self.messages:
            id = self.messages[which % len(self.messages)][0]
            self.both("withdraw", [id])
            self.books.admitted.pop(id, None)

    def repeat(self, which: int) -> None:
        if self.messages:
            self.both("repeat", self.messages[which % len(self.messages)][0])

    def release(self, token: str = "turn") -> None:
        id = f"b{next(self.numbers)}"
        answer = self.both("release", token, id, self.limits, (len(self.batches), 7))
        if isinstance(answer, Released):
            self.batches.append(id)
            self.books.open[id] = answer
            if self.limits.capacity is not None:
                self.books.limited.add(id)

    def _batch(self, which: int) -> str:
        return self.batches[which % len(self.batches)] if self.batches else "none"

    def claim(self, which: int, nonce: str, ms: int) -> None:
        id = self._batch(which)
        answer: Claim = self.both("claim", id, nonce, self.limits, ms)
        if answer.state == "recalled":
            del self.books.open[id]
        if answer.state == "claimed" and id in self.books.open:
            batch = self.books.open.pop(id)
            self.books.running[id] = (batch, read(answer.blocks))
            if id in self.books.limited:
                self.books.holds[id] = (self.clock.now_ms() + self.limits.hold_ms, batch.cost)

    def renew(self, which: int, nonce: str) -> None:
        id = self._batch(which)
        answer = self.both("renew", id, nonce, self.limits, f"r{next(self.numbers)}")
        if answer and id in self.books.holds:
            cost = self.books.holds[id][1]
            self.books.holds[id] = (self.clock.now_ms() + self.limits.hold_ms, cost)

    def charge(self, which: int, nonce: str, number: int, more: tuple[int, int]) -> None:
        self.both(
            "charge",
            self._batch(which),
            nonce,
            number,
            Charge(more, (("k", more[: which % 2 + 1]),)),
        )
        self.books.charged |= bool(self.batches)
        assert self.memory.store.estimates("u") == pytest.approx(self.redis.store.estimates("u"))

    def set_capacity(self, capacity: int, reserved: int | None) -> None:
        limits = replace(self.limits, capacity=20).all
        self.both("set_capacity", [capacity] * len(limits), reserved)

    def lease(self, lasting: list[int], token: str) -> None:
        term = self.both("limiter", token, 700, f"fleet{next(self.numbers)}").term
        now = self.clock.now_ms()
        until = {at: now + ms for at, ms in enumerate(lasting)}
        self.both("lease", term or 1, Leased(until, 2, 4))

    def yield_limiter(self) -> None:
        self.both("yield_limiter", "limiter")

    def _settlement(self, id: str, outcomes: str, delay: int) -> Settlement:
        """Outcomes for what the batch has, every second operation with its own details."""
        entries = self.books.running[id][1] if id in self.books.running else []
        letters = outcomes if len(outcomes) == 1 else (outcomes * 1000)[: len(entries)] or "d"
        own = range(0, len(entries), 2)
        return Settlement(
            letters,
            "why",
            reasons={at: f"why {at}" for at in own},
            delays=dict.fromkeys(own, delay) if delay else {},
            forget=[one.id for one in entries if one.registered],
        )

    def settle(self, which: int, nonce: str, outcomes: str, delay: int) -> None:
        id = self._batch(which)
        settlement = self._settlement(id, outcomes, delay)
        if self.both("settle", id, nonce, settlement) and id in self.books.running:
            self.books.take_out(id, settlement.outcomes)

    def commit(self, which: int, nonce: str, number: int, outcomes: str, delay: int) -> None:
        id = self._batch(which)
        known = self.books.running.get(id)
        settlement = self._settlement(id, outcomes, delay)
        before = self.commits.get(id, 0)
        if self.both("commit", id, nonce, number, settlement) and known and number > before:
            self.commits[id] = number
            self.books.keep(id, settlement.outcomes)

    def work(self, outcomes: str, delay: int, committed: str) -> None:
        """The newest batch on its whole way, which chance seldom finds."""
        self.release()
        self.claim(-1, "n/1", 60_000)
        if committed:
            self.commit(-1, "n/1", 1, committed, delay)
        self.settle(-1, "n/1", outcomes, delay)

    def expire(self, most: int) -> None:
        for late in self.both("expire", "turn", self.limits, "late", most):
            halved = self.books.bisect[late.watcher] and late.operations > 1
            assert late.died == self.books.take_out(late.id, "h" if halved else "r")
            self.books.expired += 1

    def abandon(self, which: int, owner: str, attempt: bool) -> None:
        lost = self.both("abandon", self._batch(which), owner, "lost", attempt=attempt)
        if lost:
            halved = self.books.bisect[lost.watcher] and lost.operations > 1
            outcome = "g" if not attempt else "h" if halved else "r"
            assert lost.died == self.books.take_out(lost.id, outcome)

    def probe(self, ms: int, most: int) -> None:
        for recalled in self.both("probe", "turn", ms, most):
            del self.books.open[recalled.id]

    def offer(self, most: int) -> None:
        self.both("offer", "turn", most)

    def published(self, which: int) -> None:
        self.both("published", [self._batch(which)])

    def pause(self, ms: int) -> None:
        self.both("pause", ms)

    def drain(self) -> None:
        self.both("drain")

    def redrive(self, watcher: str, most: int) -> None:
        self._without("redrive", watcher, most)

    def purge(self, watcher: str, most: int) -> None:
        gone = self._without("purge", watcher, most)
        self.books.settled += gone  # as if they had never died, and were done
        self.books.settled_cost += self.books.gone_cost

    def _without(self, act: str, watcher: str, most: int) -> int:
        """Letters leave the dead: what stays tells which."""
        before = self.both("dead", watcher, 10**6)
        changed: int = self.both(act, watcher, [one.number for one in before[:most]] + [10**9])
        after = {one.number for one in self.both("dead", watcher, 10**6)}
        gone = [one for one in before if one.number not in after]
        assert len(gone) == changed
        self.books.gone_cost = sum(read_entries(one.entry)[0].cost for one in gone)
        self.books.settled -= changed
        self.books.settled_cost -= self.books.gone_cost
        self.books.dead -= changed
        self.books.dead_cost -= self.books.gone_cost
        return changed

    def shut(self, ms: int) -> None:
        self.both("shut", ms)

    def throttle(self, jitter: float) -> None:
        self.both("throttle", 4000, jitter)

    def advance(self, ms: int) -> None:
        self.clock.advance(ms / 1000)

    def idle(self, watcher: str) -> None:
        self.both("idle", watcher)

    def forget(self, which: int) -> None:
        self.both("forget", [self.messages[which % len(self.messages)][0]] if self.messages else [])

    def want(self, ms: int, wake: bool) -> None:
        self.both("want", ms, wake=wake)

    def fill(self, watcher: str, ops: list[dict[str, Any]], most: int, token: str) -> None:
        """A run takes its right, if it can, and brings a chunk."""
        entries = b"".join(
            op(one.get("id") or f"o{next(self.numbers)}", enqueued_ms=self.clock.now_ms(),
               registered=bool(one.get("id")), **{k: v for k, v in one.items() if k != "id"})
            for one in ops
        )  # fmt: skip
        self.both("take_backfill", "back", watcher, token, 500, token, again=most > 5)
        before = self.both("counts")
        number = self.both("backfills")[0].chunk + most % 3
        chunk = Chunk(number, entries, len(ops), sum(one["cost"] for one in ops), "7", most)
        self.both("fill", "back", token, 500, watcher, chunk, most)
        after = self.both("counts")
        self.books.staged += after.waiting - before.waiting
        self.books.staged_cost += after.waiting_cost - before.waiting_cost

    def end_backfill(self, token: str, done: bool, error: str, hold: bool) -> None:
        self.both("leave_backfill", "back", token, done=done, error=error)
        self.both("hold_backfill", "back", "v", hold=hold)
        self.both("backfills", "back", "none")

    def reset_backfill(self) -> None:
        self.both("reset_backfill", "back")
        self.both("backfills")

    def audit(self) -> None:
        """A step: the walk goes on while other acts change what it counts."""
        for bench in (self.memory, self.redis):
            assert not bench.store.audit(f"a{next(self.numbers)}", 0).differences

    def explain(self, watcher: str, costs: tuple[int, ...], priority: int, key: str) -> None:
        self.both("explain", watcher, self.limits, costs, priority, key)

    def peek(self, watcher: str, most: int) -> None:
        before = self.redis.snapshot()
        self.both("peek", watcher, most)
        assert self.redis.snapshot() == before

    def discard(self, part: str, watcher: str, most: int, steps: int) -> None:
        left = 0
        for _ in range(steps):
            before = self.memory.store.counts()
            id = f"d{next(self.numbers)}"
            gone = self.both("discard", id, part, watcher, most, left)
            after = self.memory.store.counts()
            left = gone.left
            self.books.settled += gone.operations  # as if they were done
            self.books.settled_cost += before.unsettled_cost - after.unsettled_cost

    def seek(self, which: int, part: str, watcher: str) -> None:
        """The search of the store in memory is one step."""
        id = f"o{which}"
        ours = self.memory.store.seek(id, part, watcher)
        looked, theirs = 0, self.redis.store.seek(id, part, watcher)
        while theirs.cursor:
            looked += theirs.looked
            theirs = self.redis.store.seek(id, part, watcher, theirs.cursor)
        assert ours.found == theirs.found
        assert theirs.found or part == "heads" or looked + theirs.looked == ours.looked

    def recent(self, most: int) -> None:
        self.both("recent", most)

    def look(self) -> None:
        self.both("take_turn", "turn", 10**9, keep=True)
        self.both("take_turn", "other", 10, keep=False)
        self.both("leases")
        for watcher in WATCHERS:
            self.both("dead", watcher, 50)
            self.both("peek", watcher, 50)
        self.both("set_asides", 50)
        self.both("recent", 100)


def act(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *args)


which = st.integers(-4, 3)
watcher = st.sampled_from(WATCHERS)
nonce = st.sampled_from(["n/1", "n/1", "n/1", "other/1"])
all_decided = st.sampled_from(["d", "r", "g", "x", "h", "a", "drgx", "gd", "rr", "hd", "hhax"])
limiter = st.sampled_from(["limiter", "limiter", "other"])
some_decided = st.sampled_from(["d", "d-", "r-", "-xg", "h-"])
delay = st.sampled_from([0, 0, 1, 700])
operation = st.fixed_dictionaries(
    {
        "cost": st.one_of(st.integers(0, 6), st.integers(0, 30)),
        "key": st.sampled_from([None, None, "a", "b", "c"]),
        "priority": st.integers(0, 2),
        "batchable": st.sampled_from([True, True, True, False]),
    },
    optional={
        "further": st.lists(st.integers(0, 30), min_size=1, max_size=1),
        "id": st.sampled_from(["x", "y"]),
        "dedupe_ms": st.sampled_from([0, 0, 7, 500, 5000]),
        "payload": st.sampled_from([b"", b"0" * 400_000]),
        "attempt": st.integers(1, 3),
    },
)
operations = st.lists(operation, min_size=1, max_size=8)
options = st.fixed_dictionaries(
    {
        "max_batch_size": st.sampled_from([1, 3, 20]),
        "max_attempts": st.integers(0, 3),
        "max_concurrent_batches": st.sampled_from([0, 0, 1, 2]),
        "weight": st.integers(1, 3),
        "batch_by_key": st.booleans(),
        "bisect": st.sampled_from([True, True, False]),
        "key_capacity": st.sampled_from([None, None, 3, 9, 20]),
        "key_window_ms": st.sampled_from([200, 1000, 3000]),
        "key_concurrency": st.sampled_from([0, 0, 0, 1, 2]),
    }
)
acts = st.one_of(
    act("put", watcher, operations),
    act("put", watcher, operations),
    act("release"),
    act("release"),
    act("release"),
    act("claim", which, nonce, st.sampled_from([500, 60_000])),
    act("claim", which, nonce, st.sampled_from([500, 60_000])),
    act("settle", which, nonce, all_decided, delay),
    act("commit", which, nonce, st.integers(1, 3), some_decided, delay),
    act("work", all_decided, delay, st.sampled_from(["", "", "d-", "r-", "-xg"])),
    act("renew", which, nonce),
    act("advance", st.sampled_from([1, 7, 100, 500, 1009, 1010, 5000])),
    act("advance", st.sampled_from([1, 7, 100, 500, 1009, 1010, 5000])),
    act("configure", st.sampled_from([None, 20, 20]), options),
    act("set_capacity", st.sampled_from([0, 1, 9, 20, 100]), st.sampled_from([None, None, 7])),
    act("lease", st.lists(st.sampled_from([10, 1010, 1500, 9000]), max_size=5), limiter),
    act("yield_limiter"),
    act("charge", which, nonce, st.integers(1, 3), st.tuples(*[st.integers(-9, 30)] * 2)),
    act("neighbour", st.integers(0, 12), st.integers(0, 3)),
    act("neighbour", st.integers(0, 12), st.integers(0, 3)),
    act("admit", watcher, operations, st.sampled_from([5, 10**6])),
    act("stage", which, st.sampled_from(["turn", "turn", "lost"])),
    act("withdraw", which),
    act("repeat", which),
    act("expire", st.integers(1, 3)),
    act("abandon", which, st.sampled_from(["n", "other"]), st.booleans()),
    act("probe", st.sampled_from([0, 1000]), st.integers(1, 3)),
    act("offer", st.integers(1, 3)),
    act("published", which),
    act("pause", st.sampled_from([-1, 0, 0, 50, 700])),
    act("drain"),
    act("redrive", watcher, st.integers(1, 3)),
    act("purge", watcher, st.integers(1, 2)),
    act("throttle", st.sampled_from([0.0, 0.3, 0.5])),
    act("shut", st.sampled_from([50, 700])),
    act("idle", watcher),
    act("forget", which),
    act("want", st.integers(0, 5000), st.booleans()),
    act("release", st.just("lost")),
    act("garbage", st.binary(max_size=60)),
    act("fill", watcher, operations, st.sampled_from([4, 10**6]), st.sampled_from("fg")),
    act(
        "end_backfill",
        st.sampled_from("fg"),
        st.booleans(),
        st.sampled_from(["", "why"]),
        st.sampled_from([False, False, True]),
    ),
    act("reset_backfill"),
    act("audit"),
    act("audit"),
    act("audit"),
    act(
        "explain",
        watcher,
        st.sampled_from([(3,), (25, 40)]),
        st.integers(0, 2),
        st.sampled_from(["", "a", "b"]),
    ),
    act("explain", watcher, st.just(()), st.just(1), st.just("")),
    act("seek", st.integers(0, 60), st.sampled_from(["batches", "delayed", "dead"]), watcher),
    act("seek", st.integers(0, 60), st.sampled_from(["heads", "waiting"]), watcher),
    act("peek", watcher, st.sampled_from([1, 2, 30])),
    act("peek", watcher, st.sampled_from([1, 2, 30])),
    act(
        "discard",
        st.sampled_from(["waiting", "delayed"]),
        watcher,
        st.sampled_from([1, 3, 500]),
        st.integers(1, 3),
    ),
    act("recent", st.integers(1, 5)),
    act("look"),
)

scalar = Limits(capacity=20, flush_ms=500, max_open_batches=4)
SHAPES = [
    scalar,
    scalar,
    replace(scalar, resource=ResourceOptions(ramp=(3,), every_ms=100, weight=3, floor=0.3)),
    replace(
        scalar,
        others=(Limit(1, 60, 5000), Limit(2, 30, 1000)),
        resource=ResourceOptions(dimensions=("a", "b"), adaptive=True),
    ),
    replace(scalar, resource=ResourceOptions(factor=5, reserved=3)),
]

_prefixes = count()


@pytest.fixture(scope="module")
def client(redis_client: Redis) -> Iterator[Redis]:
    yield redis_client
    for key in redis_client.scan_iter("twin*", count=1000):
        redis_client.delete(key)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
@given(shape=st.sampled_from(SHAPES), script=st.lists(acts, max_size=60))
def test_both_stores_give_the_same_answers_and_keep_the_same_counts(
    client: Redis, shape: Limits, script: list[tuple[Any, ...]]
) -> None:
    pair = Pair(client, f"twin{next(_prefixes)}:", shape)
    for name, *args in script:
        getattr(pair, name)(*args)
        pair.check()
    pair.look()
