"""A fleet in one thread: real flushing and claiming code on a memory store and a clock of ours.

Whatever takes time in the fleet (a request, a reply, a stall) lets everybody else act meanwhile, so
that every interleaving of a real fleet can occur, and the same seed gives the same one.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import Any

from celery import Celery
from greenlet import getcurrent, greenlet

from builders import NORMAL, START_MS, MicroClock, op
from celery_batcher.batch import Batch
from celery_batcher.claim import Claimant
from celery_batcher.costs import costs_of
from celery_batcher.errors import ClaimExpiredError
from celery_batcher.events import Listeners
from celery_batcher.operation import Operation
from celery_batcher.store.base import Admission, Arrival, Claim, Refused, Released
from celery_batcher.store.memory import MemoryServer, MemoryStore
from celery_batcher.store.options import Limit, Limits, WatcherOptions

APP = Celery("fleet", broker="memory://", set_as_current=False)
WAKES = {"capacity", "paused", "closed", "empty"}
FREED_MS = 10


@dataclass(frozen=True)
class Started:
    """A batch whose handler started: when, when it was claimed (microseconds), and its costs.

    ``real`` is what it really cost, by dimension.
    """

    start: int
    claim: int
    costs: tuple[int, ...]
    watcher: str
    batcher: str
    real: tuple[int, ...]
    key: str | None = None

    @property
    def cost(self) -> int:
        """Its cost in the first dimension."""
        return self.costs[0]


@dataclass
class Fleet:
    """Batchers on one resource, with as many workers as there are batches.

    ``real``: what an operation really costs; then handlers charge it, at the end of their work.
    """

    seed: int
    limits: Limits
    request_us: tuple[int, int] = (0, 0)
    reply_us: tuple[int, int] = (0, 0)
    lag_us: tuple[int, int] = (0, 0)
    prompt: float = 0.0
    twice: float = 0.0
    work_us: tuple[int, int] = (0, 0)
    real: Callable[[Operation], int] | None = None
    clock: MicroClock = field(default_factory=MicroClock)
    starts: list[Started] = field(default_factory=list)
    capacities: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.server = MemoryServer(self.clock)
        self.numbers = count(1)
        self.members: list[Member] = []
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self.capacities.append((self.clock.us, tuple(one.capacity for one in self.limits.all)))

    def member(self, name: str, *watchers: WatcherOptions, **shares: Any) -> Member:
        """A batcher on the fleet's resource; ``shares``: its weight and floors."""
        member = Member(self, name, watchers or (WatcherOptions("w"),), shares)
        self.members.append(member)
        return member

    def at(self, us: int, act: Callable[[], None]) -> None:
        """Do something at a time, or now if that is over."""
        heapq.heappush(self._events, (us, next(self.numbers), act))

    def advance(self, us: int) -> None:
        """Let time pass, and happen what is due in it."""
        until = self.clock.us + us
        while self._events and self._events[0][0] <= until:
            due, _, act = heapq.heappop(self._events)
            self.clock.us = max(self.clock.us, due)
            act()
        self.clock.us = max(self.clock.us, until)

    def spend(self, bounds: tuple[int, int]) -> None:
        """Spend a random time between bounds, while others act."""
        self.advance(self.random.randint(*bounds))

    def work(self) -> None:
        """A handler works for a random time, while others act and end before it or after."""
        worker = getcurrent()

        def resume() -> None:
            worker.parent = getcurrent()
            worker.switch()

        if self.work_us != (0, 0):
            self.at(self.clock.us + self.random.randint(*self.work_us), resume)
            worker.parent.switch()

    def set_capacity(self, *capacities: int) -> None:
        """Change the capacities of all limits, in the store."""
        self.members[0].store.set_capacity(capacities)
        self.capacities.append((self.clock.us, capacities))

    def used(self, since: int, until: int, batcher: str = "") -> int:
        """Cost that started between two times, in microseconds from the fleet's start."""
        zero = START_MS * 1000
        return sum(
            one.cost
            for one in self.starts
            if since <= one.start - zero < until and batcher in {"", one.batcher}
        )

    def worst(self, watcher: str, key: str, window_us: int) -> int:
        """The most that operations of a key started within a window."""
        own = [one for one in self.starts if (one.watcher, one.key) == (watcher, key)]
        return max(
            (sum(one.cost for one in own if 0 <= one.start - first.start < window_us)
             for first in own),
            default=0,
        )  # fmt: skip

    def capacity_at(self, us: int, limit: int) -> int:
        """The capacity of a limit in force at a time."""
        return next(figures[limit] for since, figures in reversed(self.capacities) if since <= us)

    def overshoots(self) -> list[tuple[int, int, int]]:
        """Windows (start, real cost, capacity) of any limit in which more started than allowed."""
        return [one for n, limit in enumerate(self.limits.all) for one in self._over(n, limit)]

    def _over(self, n: int, limit: Limit) -> list[tuple[int, int, int]]:
        """Those of one limit.

        A window is measured against the capacity in force at its last claim: that is the capacity
        of windows that begin after a change, and of those across one the new or the old.
        """
        window = limit.window_ms * 1000
        starts = sorted(self.starts, key=lambda one: one.start)
        found, last = [], 0
        for at, first in enumerate(starts):
            last = max(last, at)
            while last < len(starts) and starts[last].start < first.start + window:
                last += 1
            inside = starts[at:last]
            cost = sum(one.real[limit.dimension - 1] for one in inside)
            capacity = self.capacity_at(max(one.claim for one in inside), n)
            if cost > capacity:
                found.append((first.start, cost, capacity))
        return found


class Member:
    """One batcher of a fleet: its flusher and its workers."""

    def __init__(
        self,
        fleet: Fleet,
        name: str,
        watchers: Sequence[WatcherOptions],
        shares: Mapping[str, Any],
    ) -> None:
        self.fleet = fleet
        self.name = name
        self.limits = replace(fleet.limits, resource=replace(fleet.limits.resource, **shares))
        self.store = MemoryStore(fleet.server, batcher=name, resource="resource")
        self.store.configure(self.limits, watchers)
        self.capped = {one.name: one.capped for one in watchers}
        self.store.take_turn("turn", 10**12)
        self._wake = 0

    def put(
        self,
        costs: Sequence[int],
        *,
        watcher: str = "w",
        key: str | None = None,
        priority: int = NORMAL,
        further: Sequence[int] = (),
    ) -> None:
        """Operations of these costs, each with the same in further dimensions."""
        for at in range(0, len(costs), 1000):
            portion = costs[at : at + 1000]
            id = f"{self.name}.{next(self.fleet.numbers)}"
            entries = b"".join(
                op(f"{id}.{n}", cost=cost, key=key, priority=priority, further=further)
                for n, cost in enumerate(portion)
            )
            self.store.admit([Admission(id, watcher, len(portion), sum(portion))], 10**9)
            self.store.stage("turn", [Arrival(id, watcher, entries)], "")

    def flush(self) -> None:
        """Release what may be released; workers claim it after their lag."""
        fleet = self.fleet
        while True:
            id = f"{self.name}.{next(fleet.numbers)}"
            answer = self.store.release("turn", id, self.limits)
            if fleet.random.random() < fleet.twice:
                assert self.store.release("turn", id, self.limits) == answer
            if isinstance(answer, Refused):
                break
            self._deliver(answer)
        wait_ms = answer.wait_ms if answer.reason in WAKES else -1
        if answer.freed:
            wait_ms = FREED_MS if wait_ms < 0 else min(FREED_MS, wait_ms)
        if wait_ms >= 0:
            ends = (fleet.clock.us // 1000 + wait_ms) * 1000
            if ends != self._wake:
                self._wake = ends
                fleet.at(ends, self.flush)

    def tick(self, every_ms: int, until: int) -> None:
        """Flush at this interval, up to a time."""
        self.flush()
        due = self.fleet.clock.us + every_ms * 1000
        if due <= until:
            self.fleet.at(due, lambda: self.tick(every_ms, until))

    def upkeep(self) -> None:
        """What a turn does besides flushing."""
        self.store.expire("turn", self.limits, "late", 256)
        self.store.probe("turn", 1000, 256)
        for offer in self.store.offer("turn", 256):
            self._deliver(offer)

    def _deliver(self, batch: Released) -> None:
        fleet = self.fleet
        lag = 0 if fleet.random.random() < fleet.prompt else fleet.random.randint(*fleet.lag_us)
        due = fleet.clock.us + lag
        fleet.at(due, lambda: self._work(batch))

    def _work(self, batch: Released) -> None:
        greenlet(lambda: self._run(batch)).switch()

    def _run(self, batch: Released) -> None:
        line, dimensions = Line(self.fleet, self.store), self.limits.resource.dimensions

        def handle(batch: Batch) -> None:
            now, fleet = self.fleet.clock.us, self.fleet
            costs = real = costs_of(batch.cost, dimensions)
            actual = [(one, fleet.real(one)) for one in batch] if fleet.real else []
            if actual:
                real = (sum(cost for _, cost in actual),)
            started = Started(
                now, line.claimed, costs, batch.watcher, self.name, real, batch[0].key
            )
            fleet.starts.append(started)
            fleet.work()
            if actual:
                batch.charge_many(actual)

        claimant = Claimant(
            app=APP,
            store=line,  # type: ignore[arg-type]
            clock=self.fleet.clock,
            limits=self.limits,
            operation_time=60.0,
            watcher=batch.watcher,
            handler=handle,
            listeners=Listeners(),
            emit_batch=False,
            dimensions=dimensions,
            caps_keys=self.capped[batch.watcher],
        )
        with suppress(ClaimExpiredError):  # the task fails, the fleet goes on
            claimant.run(batch.id)


class Line:
    """A worker's line to the store: requests and replies take their time, some are sent twice."""

    def __init__(self, fleet: Fleet, store: MemoryStore) -> None:
        self._fleet, self._store = fleet, store
        # Workers of this fleet share a thread, and so would share a nonce.
        self._nonce = f"worker {next(fleet.numbers)}"
        self.claimed = 0

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        self._fleet.spend(self._fleet.request_us)
        answer = self._store.claim(id, self._nonce, limits, ms)
        self.claimed = self._fleet.clock.us
        if self._twice():
            again = self._store.claim(id, self._nonce, limits, ms)
            assert again == answer or (answer.state, again.state) == ("recalled", "gone")
        self._fleet.spend(self._fleet.reply_us)
        return answer

    def renew(self, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
        self._fleet.spend(self._fleet.request_us)
        answer = self._store.renew(id, self._nonce, limits, renewal)
        if self._twice():
            assert self._store.renew(id, self._nonce, limits, renewal) == answer
        self._fleet.spend(self._fleet.reply_us)
        return answer

    def charge(self, id: str, nonce: str, *rest: Any) -> bool:
        self._fleet.spend(self._fleet.request_us)
        answer = self._store.charge(id, self._nonce, *rest)
        if self._twice():
            assert self._store.charge(id, self._nonce, *rest) == answer
        self._fleet.spend(self._fleet.reply_us)
        return answer

    def settle(self, id: str, nonce: str, *rest: Any) -> bool:
        answer = self._store.settle(id, self._nonce, *rest)
        if self._twice():
            assert self._store.settle(id, self._nonce, *rest) == answer
        return answer

    def _twice(self) -> bool:
        return self._fleet.random.random() < self._fleet.twice
