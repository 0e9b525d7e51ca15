"""The store in memory: for tests, and for apps that are one process.

It decides exactly as the Lua scripts do; one contract suite runs on both. State is shared by all
stores of the process that name the same URL and resource.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice

from .. import wire
from ..clock import Clock, SystemClock
from ..fairness import FairRing, weigh
from ..operation import MAX_COST
from .base import (
    Admission,
    Admitted,
    Arrival,
    AuditStep,
    Claim,
    Counts,
    Dead,
    Facts,
    Limits,
    Refused,
    Released,
    SetAside,
    Settlement,
    Staged,
    TakenBack,
    Turn,
    WatcherCounts,
    WatcherOptions,
)
from .memory_audit import AuditState, audit, counters_of

MAX_BYTES = 1024 * 1024
TURN = 10
BROUGHT_BACK, TAKEN_BACK = 100, 1000
REPUBLISH_MS, REPUBLISH_MOST_MS = 5_000, 300_000


@dataclass(slots=True)
class Waiting:
    """An operation in the index."""

    sequence: int
    data: bytes
    entry: wire.Entry


@dataclass(slots=True)
class Delayed:
    """Operations that wait later: one, or some that stay together."""

    due: int
    watcher: str
    ones: list[Waiting]


@dataclass(slots=True)
class Queue:
    """The operations of one key: what came back, in sequence, before what arrived."""

    arrived: deque[Waiting] = field(default_factory=deque)
    returned: dict[int, Waiting] = field(default_factory=dict)

    def peek(self, most: int) -> list[Waiting]:
        returned = [self.returned[at] for at in sorted(self.returned)[:most]]
        return returned + list(islice(self.arrived, most - len(returned)))

    def remove(self, taken: Sequence[Waiting]) -> None:
        for one in taken:
            if self.returned:
                del self.returned[one.sequence]
            else:
                self.arrived.popleft()


@dataclass(slots=True)
class WatcherState:
    """A watcher's queues and counters."""

    options: WatcherOptions
    admitted: int = 0
    empty_ms: int = 0
    waiting: int = 0
    waiting_cost: int = 0
    open: int = 0
    open_cost: int = 0
    claimed: int = 0
    probe: bool = False
    tag: float = 0.0
    queues: defaultdict[tuple[int, str], Queue] = field(default_factory=lambda: defaultdict(Queue))
    rings: tuple[FairRing, ...] = field(
        default_factory=lambda: tuple(FairRing() for _ in wire.PRIORITIES)
    )
    by_priority: list[int] = field(default_factory=lambda: [0] * len(wire.PRIORITIES))
    together: list[list[Waiting]] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """A batch in the ledger."""

    id: str
    watcher: str
    entries: list[Waiting]
    cost: int
    trigger: str
    oldest: int
    open_since: int
    limited: bool
    probe: bool
    offers: int = 0
    published: bool = False
    nonce: str | None = None
    deadline: int = 0
    ends: int = 0
    renewal: str | None = None
    commits: int = 0

    def describe(self, now: int) -> Released:
        return Released(
            self.id, self.watcher, len(self.entries), self.cost, self.trigger, now - self.oldest
        )


@dataclass(slots=True)
class ResourceState:
    """Holds, credit and the head in need of one resource."""

    capacity: int | None = None
    hold_ms: int = 0
    held: int = 0
    open: int = 0
    ends: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    credit: float = 0.0
    credit_ms: int | None = None
    head: str | None = None
    head_cost: int = 0
    head_until: int = 0
    rests: dict[str, int] = field(default_factory=dict)
    closed_until: int = 0
    throttled_ms: int = 0


@dataclass(slots=True)
class BatcherState:
    """Everything of one batcher."""

    watchers: dict[str, WatcherState] = field(default_factory=dict)
    ring: FairRing = field(default_factory=FairRing)
    batches: dict[str, Batch] = field(default_factory=dict)
    offers: dict[str, int] = field(default_factory=dict)
    settled: dict[tuple[str, str], int] = field(default_factory=dict)
    admitted: dict[str, tuple[Admission, int]] = field(default_factory=dict)
    lanes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    noted: dict[str, int] = field(default_factory=dict)
    repeated: dict[str, int] = field(default_factory=dict)
    aside: list[SetAside] = field(default_factory=list)
    later: list[Delayed] = field(default_factory=list)
    sequence: int = 0
    paused_until: int = 0
    draining: bool = False
    turn: str | None = None
    turn_until: int = 0
    wanted_until: int = 0
    wakes: int = 0
    expire_ms: int = 0
    spare_until: int = 0
    done: int = 0
    died: int = 0
    dropped: int = 0
    expired: int = 0
    halved: int = 0
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    late: int = 0
    audit: AuditState = field(default_factory=AuditState)


class MemoryServer:
    """What a server is to the Redis store: state by resource and batcher, behind one lock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.lock = threading.RLock()
        self.resources: defaultdict[str, ResourceState] = defaultdict(ResourceState)
        self.batchers: defaultdict[tuple[str, str], BatcherState] = defaultdict(BatcherState)


_servers: defaultdict[str, MemoryServer] = defaultdict(MemoryServer)


def server(url: str) -> MemoryServer:
    """The process's own server of this URL."""
    return _servers[url]


class MemoryStore:
    """Shared state of one batcher in this process; nothing survives it."""

    def __init__(
        self, server: MemoryServer, *, batcher: str, resource: str, url: str = "memory://"
    ) -> None:
        self.url = url
        self._server = server
        self._batcher = batcher
        self._key = (resource, batcher)

    @property
    def _state(self) -> BatcherState:
        return self._server.batchers[self._key]

    @property
    def _resource(self) -> ResourceState:
        return self._server.resources[self._key[0]]

    @contextmanager
    def _act(self) -> Iterator[tuple[BatcherState, ResourceState, int]]:
        with self._server.lock:
            yield self._state, self._resource, self._server.clock.now_ms()

    def _watcher(self, name: str) -> WatcherState:
        watchers = self._state.watchers
        if name not in watchers:
            watchers[name] = WatcherState(WatcherOptions(name))
        return watchers[name]

    def configure(self, limits: Limits, watchers: Sequence[WatcherOptions]) -> int | None:
        with self._act() as (state, resource, _):
            before = resource.capacity
            if limits.capacity is not None:
                resource.capacity = limits.capacity
                resource.hold_ms = self._longest_hold(limits)
            for options in watchers:
                self._watcher(options.name).options = options
                self._reindex(options.name)
            if before != resource.capacity:
                for name in state.watchers:
                    self._reindex(name)
            return before

    # Producers

    def admit(self, admissions: Sequence[Admission], buffer_size: int) -> Admitted:
        with self._act() as (state, _, now):
            admitted, cost, buffered = 0, self.counts().unsettled_cost, self._buffered()
            for one in admissions:
                if one.id not in state.admitted:
                    if state.draining:
                        return Admitted(admitted, buffered, draining=True)
                    if cost + one.cost > MAX_COST:
                        return Admitted(admitted, buffered, too_dear=True)
                    if buffered + one.operations > buffer_size:
                        break
                    cost, buffered = cost + one.cost, buffered + one.operations
                    state.admitted[one.id] = one, now
                    state.lanes.add(one.watcher)
                    self._watcher(one.watcher).admitted += 1
                admitted += 1
            return Admitted(admitted, buffered)

    def withdraw(self, ids: Sequence[str]) -> int:
        with self._act():
            return sum(self._discharge(id) for id in ids)

    def _discharge(self, id: str) -> int:
        admission = self._state.admitted.pop(id, None)
        if admission is None:
            return 0
        self._watcher(admission[0].watcher).admitted -= 1
        return 1

    def _buffered(self) -> int:
        state = self._state
        admitted = sum(one.operations for one, _ in state.admitted.values())
        waiting = sum(watcher.waiting for watcher in state.watchers.values())
        return admitted + waiting + sum(len(delayed.ones) for delayed in state.later)

    def repeat(self, id: str) -> bool:
        with self._act() as (state, _, now):
            for old in [old for old, at in state.repeated.items() if at <= now - 86_400_000]:
                del state.repeated[old]
            if id not in state.admitted:
                return False
            state.repeated[id] = now
            return True

    # The turn

    def want(self, ms: int, *, wake: bool = False) -> int:
        with self._act() as (state, _, now):
            state.wanted_until = max(state.wanted_until, now + ms)
            state.wakes += wake
            return max(0, state.turn_until - now)

    def take_turn(self, token: str, ms: int, *, keep: bool = False) -> Turn:
        with self._act() as (state, _, now):
            if state.turn != token:
                if keep or (state.turn and state.turn_until > now):
                    return Turn(False)
                state.turn = token
            state.turn_until = now + ms
            waiting = sum(watcher.waiting for watcher in state.watchers.values())
            lanes = tuple(sorted(state.lanes))
            return Turn(True, state.wanted_until - now, state.wakes, waiting, lanes)

    def leave_turn(self, token: str) -> bool:
        with self._act() as (state, _, _now):
            if state.turn != token:
                return False
            state.turn, state.turn_until = None, 0
            return True

    # Intake

    def stage(self, token: str, arrivals: Sequence[Arrival], leases: str) -> Staged:
        with self._act() as (state, _, now):
            if state.turn != token:
                return Staged(lost=True)
            staged = duplicates = aside = 0
            for one in arrivals:
                repeated = one.id in state.repeated and one.id not in state.admitted
                if one.id in state.noted or repeated:
                    continue
                state.noted[one.id] = now
                watcher, (entries, fault) = one.watcher, self._entries_of(one)
                if fault:
                    state.aside.append(SetAside(now, watcher, fault, one.entries))
                    aside += 1
                for entry, data in zip(entries, wire.split_entries(one.entries), strict=False):
                    if entry.registered and entry.id in state.ids:
                        duplicates += 1
                        continue
                    if entry.registered:
                        state.ids.add(entry.id)
                    state.sequence += 1
                    staged += 1
                    waiting = Waiting(state.sequence, data, entry)
                    self._queue(watcher, entry).arrived.append(waiting)
                    self._count_waiting(watcher, waiting)
                self._discharge(one.id)
                self._reindex(watcher)
            return Staged(staged, duplicates, aside)

    def _entries_of(self, one: Arrival) -> tuple[list[wire.Entry], str]:
        """The entries of a message, or none and why it is set aside."""
        if one.fault:
            return [], one.fault
        try:
            cost = sum(piece.cost for piece in wire.split_pieces(one.entries))
        except wire.MalformedError as exc:
            return [], str(exc)
        known = self._state.admitted.get(one.id)
        others = self.counts().unsettled_cost - (known[0].cost if known else 0)
        if others + cost > MAX_COST:
            return [], "impossible cost"
        return wire.decode_entries(one.entries), ""

    def forget(self, ids: Sequence[str]) -> int:
        with self._act() as (state, _, now):
            for id in ids:
                state.noted.pop(id, None)
            for id in [id for id, at in state.noted.items() if at <= now - 86_400_000]:
                del state.noted[id]
            return len(state.noted)

    def idle(self, watchers: Sequence[str]) -> int:
        with self._act() as (state, _, now):
            unmarked = 0
            for name in watchers:
                self._watcher(name).empty_ms = now
                if not self._watcher(name).admitted:
                    state.lanes.discard(name)
                    unmarked += 1
            return unmarked

    def void(self, ms: int, most: int) -> int:
        with self._act() as (state, _, _now):
            void = [
                id
                for id, (one, at) in state.admitted.items()
                if self._watcher(one.watcher).empty_ms - at > ms
            ]
            for id in void:
                state.repeated.pop(id, None)  # it was never staged: the next to arrive is the first
            return sum(self._discharge(id) for id in void)

    # The index

    def _queue(self, watcher: str, entry: wire.Entry) -> Queue:
        return self._watcher(watcher).queues[entry.priority, entry.key or ""]

    def _count_waiting(self, watcher: str, one: Waiting) -> None:
        """An operation waits (again): its key joins the ring, counters go up."""
        state = self._watcher(watcher)
        state.rings[one.entry.priority].join(one.entry.key or "")
        state.waiting += 1
        state.waiting_cost += one.entry.cost
        state.by_priority[one.entry.priority] += 1

    def _reindex(self, name: str) -> None:
        """A watcher is in the ring while it has operations and may release a batch."""
        watcher, ring = self._watcher(name), self._state.ring
        most = watcher.options.max_concurrent_batches
        busy = most and watcher.open + watcher.claimed >= most
        if watcher.waiting and not busy and not (watcher.probe and watcher.open):
            ring.join(name, watcher.tag)
        else:
            ring.leave(name)

    # Release

    def release(self, token: str, id: str, limits: Limits) -> Released | Refused:
        with self._act() as (state, _, now):
            if id in state.batches:
                return state.batches[id].describe(now)
            if state.turn != token:
                return Refused("lost", 0)
            self._bring_back(now)
            refusal = self._gate(now) or self._counts_allow(limits)
            if refusal:
                return refusal
            limited = limits.capacity is not None
            if limited:
                self._lapse(now, self._longest_hold(limits))
            while top := state.ring.first():
                name, tag = top
                head = self._next(name)
                allowed: float | Refused | None = math.inf
                if head is None:
                    allowed = None
                elif limited:
                    allowed = self._allow(head.entry.cost, name, limits, now)
                if isinstance(allowed, Refused):
                    return allowed
                if allowed is None:
                    state.ring.leave(name)
                    continue
                return self._record(id, name, tag, allowed, limited, now).describe(now)
            return Refused("empty", self._next_due(now))

    def _bring_back(self, now: int) -> None:
        """Operations whose delay is over wait again."""
        later = self._state.later
        due = [delayed for delayed in later if delayed.due <= now][:BROUGHT_BACK]
        del later[: len(due)]
        for delayed in due:
            self._wait_again(delayed.watcher, delayed.ones)
        for name in {delayed.watcher for delayed in due}:
            self._reindex(name)

    def _next_due(self, now: int) -> int:
        later = self._state.later
        return max(1, later[0].due - now) if later else -1

    def _gate(self, now: int) -> Refused | None:
        paused, closed = self._state.paused_until, self._resource.closed_until
        if paused == -1:
            return Refused("paused", -1)
        if paused > now:
            return Refused("paused", paused - now)
        if closed > now:
            return Refused("closed", closed - now)
        return None

    def _counts_allow(self, limits: Limits) -> Refused | None:
        batches = self._state.batches.values()
        if sum(1 for batch in batches if batch.nonce is None) >= limits.max_open_batches:
            return Refused("open", -1)
        if limits.max_concurrent_batches and len(batches) >= limits.max_concurrent_batches:
            return Refused("concurrency", -1)
        return None

    def _longest_hold(self, limits: Limits) -> int:
        return max(limits.hold_ms, self._resource.hold_ms)

    def _lapse(self, now: int, hold_ms: int) -> None:
        resource = self._resource
        for ends in [ends for ends in resource.ends if ends > now + hold_ms]:
            resource.ends[now + hold_ms] += resource.ends.pop(ends)
        for ends in [ends for ends in resource.ends if ends <= now]:
            resource.held -= resource.ends.pop(ends)

    def _allow(self, head_cost: int, name: str, limits: Limits, now: int) -> float | Refused | None:
        """The budget of the watcher's next batch; None when it waits for something else."""
        resource, watcher = self._resource, self._watcher(name)
        capacity = resource.capacity or 0
        if head_cost > capacity:
            return None
        others = self._need_of_others(now)
        credit, per_flush = self._earn(capacity, max(head_cost, others), limits, now)
        share = math.inf
        if watcher.open > 0:
            share = 2 * per_flush / max(1, len(self._state.ring)) - watcher.open_cost
        if head_cost > share:
            return None
        room = capacity - resource.held - resource.open - others
        credit -= others
        if head_cost > min(room, credit):
            self._note(head_cost, limits, now)
        if head_cost > room:
            return Refused("capacity", self._wait_for(head_cost - room, now))
        need: float = head_cost
        if watcher.waiting_cost > credit:
            size = watcher.options.max_batch_size
            full = min(per_flush, size * watcher.waiting_cost / watcher.waiting)
            need = max(need, full / 2)
        if need > credit:
            wait = math.ceil((need - credit) * limits.window_ms / capacity)
            return Refused("credit", max(1, wait))
        self._satisfied(head_cost, capacity, limits, now)
        return min(credit, room, share)

    def _need_of_others(self, now: int) -> int:
        """The cost of another batcher's head in need: it is left room and credit."""
        resource = self._resource
        if resource.head in (None, self._batcher) or resource.head_until <= now:
            return 0
        return resource.head_cost

    def _note(self, head_cost: int, limits: Limits, now: int) -> None:
        resource = self._resource
        if self._need_of_others(now) or resource.rests.get(self._batcher, 0) > now:
            return
        resource.head, resource.head_cost = self._batcher, head_cost
        resource.head_until = now + max(500, 3 * limits.flush_ms)

    def _satisfied(self, head_cost: int, capacity: int, limits: Limits, now: int) -> None:
        resource = self._resource
        if resource.head == self._batcher:
            resource.head = None
            if head_cost > 0:
                rest = math.ceil(head_cost * limits.window_ms / capacity)
                resource.rests[self._batcher] = now + rest

    def _earn(self, capacity: int, head_cost: int, limits: Limits, now: int) -> tuple[float, float]:
        resource = self._resource
        per_flush = capacity * limits.flush_ms / limits.window_ms
        credit = per_flush
        if resource.credit_ms is not None:
            elapsed = now - resource.credit_ms
            credit = resource.credit + capacity * elapsed / limits.window_ms
        credit = max(0, min(credit, max(2 * per_flush, head_cost)))
        resource.credit, resource.credit_ms = credit, now
        return credit, per_flush

    def _wait_for(self, need: float, now: int) -> int:
        for ends in sorted(self._resource.ends)[:200]:
            need -= self._resource.ends[ends]
            if need <= 0:
                return max(1, ends - now)
        return -1

    def _next(self, name: str) -> Waiting | None:
        """The operation that a watcher releases next."""
        together = self._watcher(name).together
        if together:
            return together[0][0]
        front = self._front(name)
        return front and front[2]

    def _front(self, name: str) -> tuple[str, float, Waiting] | None:
        """Key, its virtual time and the operation that a watcher's queues release next."""
        watcher = self._watcher(name)
        for priority, ring in enumerate(watcher.rings):
            while watcher.by_priority[priority] and (top := ring.first()):
                entries = watcher.queues[priority, top[0]].peek(1)
                if entries:
                    return top[0], top[1], entries[0]
                ring.leave(top[0])
        return None

    def _record(
        self, id: str, name: str, tag: float, budget: float, limited: bool, now: int
    ) -> Batch:
        state, watcher = self._state, self._watcher(name)
        entries, trigger, oldest = self._cut(name, budget, now)
        cost = sum(one.entry.cost for one in entries)
        batch = Batch(
            id, name, entries, cost, trigger, oldest, now, limited=limited, probe=watcher.probe
        )
        state.batches[id] = batch
        state.offers[id] = now
        watcher.open += 1
        watcher.open_cost += cost
        if limited:
            self._resource.open += cost
            self._resource.credit -= cost
        watcher.tag = tag + sum(weigh(one.entry.cost) for one in entries) / watcher.options.weight
        state.ring.time = tag
        state.ring.leave(name)
        self._reindex(name)
        return batch

    def _cut(self, name: str, budget: float, now: int) -> tuple[list[Waiting], str, int]:
        """The operations of a batch, why it ends, and when its oldest turn was enqueued."""
        watcher = self._watcher(name)
        size = 1 if watcher.probe else watcher.options.max_batch_size
        if watcher.together:
            return self._cut_together(name, size, budget)
        mean = watcher.waiting_cost / max(1, watcher.waiting)
        batch: list[Waiting] = []
        stop, oldest = "", now
        while len(batch) < size and not stop and (head := self._front(name)):
            key, tag, first = head
            ring = watcher.rings[first.entry.priority]
            most = TURN * mean if len(ring) > 1 else None
            queue = watcher.queues[first.entry.priority, key]
            taken, stop = _turn(queue, batch, size, budget, most)
            queue.remove(taken)
            batch += taken
            oldest = min(oldest, first.entry.enqueued_ms) if taken else oldest
            watcher.waiting -= len(taken)
            watcher.waiting_cost -= sum(one.entry.cost for one in taken)
            watcher.by_priority[first.entry.priority] -= len(taken)
            ring.serve(key, tag, sum(weigh(one.entry.cost) for one in taken))
            if not queue.arrived and not queue.returned:
                del watcher.queues[first.entry.priority, key]
            if not watcher.by_priority[first.entry.priority]:
                ring.clear()
            if watcher.options.batch_by_key:
                stop = stop or "interval"
        return batch, "size" if len(batch) >= size else stop or "interval", oldest

    def _cut_together(self, name: str, size: int, budget: float) -> tuple[list[Waiting], str, int]:
        """A group makes a batch of its own; what does not fit waits for the next, together."""
        watcher = self._watcher(name)
        group = watcher.together.pop(0)
        costs = accumulate(one.entry.cost for one in group)
        taken = group[: min(size, sum(1 for cost in costs if cost <= budget))]
        watcher.waiting -= len(group)
        watcher.waiting_cost -= sum(one.entry.cost for one in group)
        self._keep_together(name, group[len(taken) :])
        return taken, "bisect", taken[0].entry.enqueued_ms

    # The ledger

    def published(self, ids: Sequence[str]) -> int:
        with self._act() as (state, _, now):
            unclaimed = [id for id in ids if id in state.offers]
            for id in unclaimed:
                batch = state.batches[id]
                if not batch.published:
                    batch.published, batch.open_since = True, now
                state.offers[id] = max(state.offers[id], now + REPUBLISH_MS)
            return len(unclaimed)

    def offer(self, token: str, most: int) -> list[Released]:
        with self._act() as (state, _, now):
            if state.turn != token or self._gate(now):
                return []
            due = sorted((at, id) for id, at in state.offers.items() if at <= now)[:most]
            for _at, id in due:
                batch = state.batches[id]
                batch.offers += 1
                pause = min(REPUBLISH_MS * 2 ** (batch.offers - 1), REPUBLISH_MOST_MS)
                state.offers[id] = now + pause
            return [state.batches[id].describe(now) for _at, id in due]

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        with self._act() as (state, resource, now):
            batch = state.batches.get(id)
            if batch is None:
                return Claim("gone")
            if batch.nonce is not None:
                return self._claimed(batch, now) if batch.nonce == nonce else Claim("taken")
            blocked = self._gate(now) is not None
            if batch.limited and not blocked:
                self._lapse(now, self._longest_hold(limits))
                if batch.cost > (resource.capacity or 0):
                    self._close(batch, Settlement("g"), now)
                    return Claim("recalled")
                blocked = resource.held + batch.cost > (resource.capacity or 0)
            if blocked:
                state.offers[id] = now
                return Claim("wait")
            batch.nonce, batch.deadline = nonce, now + ms
            if batch.limited:
                resource.open -= batch.cost
                self._hold(batch, now + self._longest_hold(limits))
            del state.offers[id]
            watcher = self._watcher(batch.watcher)
            watcher.open -= 1
            watcher.open_cost -= batch.cost
            watcher.claimed += 1
            watcher.probe = False
            self._reindex(batch.watcher)
            return self._claimed(batch, now)

    def _claimed(self, batch: Batch, now: int) -> Claim:
        blocks = b"".join(
            wire.block_of(one.sequence, one.data, one.entry.cost) for one in batch.entries
        )
        return Claim("claimed", blocks, batch.deadline - now)

    def _hold(self, batch: Batch, ends: int) -> None:
        batch.ends = ends
        self._resource.ends[ends] += batch.cost
        self._resource.held += batch.cost

    def renew(self, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
        with self._act() as (state, resource, now):
            batch = state.batches.get(id)
            if batch is None or batch.nonce != nonce:
                return False
            if not batch.limited or batch.renewal == renewal:
                return True
            if batch.ends <= now or resource.ends.get(batch.ends, 0) < batch.cost:
                return False
            resource.ends[batch.ends] -= batch.cost
            resource.held -= batch.cost
            self._hold(batch, now + self._longest_hold(limits))
            batch.renewal = renewal
            return True

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        with self._act() as (state, _, now):
            batch = state.batches.get(id)
            if batch is None:
                return self._refuse(id, nonce, now)
            if batch.nonce is None or batch.nonce != nonce:
                return False
            if batch.commits < number:
                if _misses(batch, settlement):
                    return False
                batch.commits = number
                batch.entries = self._give_back(batch, settlement, now)
                batch.cost = sum(one.entry.cost for one in batch.entries)
                self._reindex(batch.watcher)
            return True

    def settle(self, id: str, nonce: str, settlement: Settlement) -> bool:
        with self._act() as (state, _, now):
            batch = state.batches.get(id)
            if batch is None:
                return (id, nonce) in state.settled or self._refuse(id, nonce, now)
            if batch.nonce is None or batch.nonce != nonce or _misses(batch, settlement):
                return False
            self._close(batch, settlement, now)
            _note(state.settled, id, nonce, now)
            return True

    def _refuse(self, id: str, nonce: str, now: int) -> bool:
        if (id, nonce) not in self._state.settled:  # else it is a commit from before, sent again
            self._state.late += _note(self._state.refused, id, nonce, now)
        return False

    def _close(self, batch: Batch, settlement: Settlement, now: int) -> None:
        """Take a batch out of the ledger; its operations go where the outcomes say."""
        state, watcher = self._state, self._watcher(batch.watcher)
        if batch.nonce is not None:
            watcher.claimed -= 1
        else:
            watcher.open -= 1
            watcher.open_cost -= batch.cost
            del state.offers[batch.id]
            if batch.limited:
                self._resource.open -= batch.cost
        del state.batches[batch.id]
        self._give_back(batch, settlement, now)
        self._reindex(batch.watcher)

    def _give_back(self, batch: Batch, settlement: Settlement, now: int) -> list[Waiting]:
        """Operations of a batch go where the outcomes say; returns the undecided."""
        outcomes = settlement.outcomes
        if len(outcomes) == 1:
            outcomes *= len(batch.entries)
        undecided: list[Waiting] = []
        backing: list[Waiting] = []
        halving: list[Waiting] = []
        pause = 0
        for position, (one, outcome) in enumerate(zip(batch.entries, outcomes, strict=True)):
            delay = settlement.delays.get(position, 0)
            if outcome == "-":
                undecided.append(one)
            elif outcome == "h":
                halving.append(one)
                pause = max(pause, delay)
            elif outcome == "g" and batch.trigger == "bisect":
                backing.append(one)
            else:
                reason = settlement.reasons.get(position, settlement.reason)
                self._settle_one(batch.watcher, one, outcome, reason, delay, now)
        if halving:
            self._halve(batch.watcher, halving, pause, now)
        self._keep_together(batch.watcher, backing)
        return undecided

    def _halve(self, name: str, ones: list[Waiting], delay: int, now: int) -> None:
        """The two halves of what failed together meet no others until they have not failed."""
        middle = (len(ones) + 1) // 2
        for half in (ones[:middle], ones[middle:]):
            self._keep_together(name, half, delay, now)
        self._state.halved += 1

    def _keep_together(self, name: str, ones: list[Waiting], delay: int = 0, now: int = 0) -> None:
        """Operations that may meet no others; a single one stays alone from now on."""
        if len(ones) == 1:
            ones = [_changed(ones[0], wire.with_alone(ones[0].data, True))]
        if ones and delay > 0:
            self._wait_later(name, ones, now + delay)
        elif ones:
            self._wait_again(name, ones)

    def _wait_later(self, name: str, ones: list[Waiting], due: int) -> None:
        insort(self._state.later, Delayed(due, name, ones), key=_due)

    def _settle_one(
        self, name: str, one: Waiting, outcome: str, reason: str, delay: int, now: int
    ) -> None:
        watcher, entry = self._watcher(name), one.entry
        tries = watcher.options.max_attempts
        again = outcome in "ra"
        if again and tries and entry.attempt >= tries:
            outcome, again = "x", False
        if again:
            data = wire.with_attempt(one.data, min(entry.attempt + 1, 65535))
            one = _changed(one, wire.with_alone(data, True) if outcome == "a" else data)
        if again and delay > 0:
            self._wait_later(name, [one], now + delay)
            return
        if again or outcome == "g":
            self._wait_again(name, [one])
            return
        self._state.ids.discard(entry.id)
        if outcome == "x":
            self._state.died += 1
            watcher.dead.append(Dead(self._state.died, now, reason, one.data))
            if 0 < watcher.options.max_dead < len(watcher.dead):
                del watcher.dead[0]
                self._state.dropped += 1
        else:
            self._state.done += 1

    def _wait_again(self, name: str, ones: list[Waiting]) -> None:
        if len(ones) == 1:
            self._queue(name, ones[0].entry).returned[ones[0].sequence] = ones[0]
            self._count_waiting(name, ones[0])
            return
        watcher = self._watcher(name)
        insort(watcher.together, ones, key=lambda group: group[0].sequence)
        watcher.waiting += len(ones)
        watcher.waiting_cost += sum(one.entry.cost for one in ones)

    def abandon(
        self, id: str, owner: str, reason: str, *, attempt: bool = True
    ) -> TakenBack | None:
        with self._act() as (state, _, now):
            batch = state.batches.get(id)
            if batch is None or not (batch.nonce or "").startswith(f"{owner}/"):
                return None
            settlement = Settlement(self._failed(id), reason) if attempt else Settlement("g")
            return self._take_back([id], settlement, now)[0]

    def expire(self, token: str, limits: Limits, reason: str, most: int) -> list[TakenBack]:
        with self._act() as (state, _, now):
            if state.turn != token:
                return []
            if state.expire_ms and now - state.expire_ms > limits.outage_ms:
                state.spare_until = now + limits.claim_grace_ms
            state.expire_ms = now
            if state.spare_until > now:
                return []
            claimed = [batch for batch in state.batches.values() if batch.nonce is not None]
            late = sorted((one.deadline, one.id) for one in claimed if one.deadline <= now)[:most]
            taken: list[TakenBack] = []
            for _, id in late:
                if sum(one.operations for one in taken) >= TAKEN_BACK:
                    break
                taken += self._take_back([id], Settlement(self._failed(id), reason), now)
            state.expired += len(taken)
            return taken

    def _failed(self, id: str) -> str:
        """What a batch becomes whose worker was lost: that names no culprit."""
        batch = self._state.batches[id]
        if not self._watcher(batch.watcher).options.bisect:
            return "r"
        return "h" if len(batch.entries) > 1 else "a"

    def _take_back(self, ids: Sequence[str], settlement: Settlement, now: int) -> list[TakenBack]:
        batches = [self._state.batches[id] for id in ids]
        for batch in batches:
            self._close(batch, settlement, now)
        return [TakenBack(batch.id, batch.watcher, len(batch.entries)) for batch in batches]

    def probe(self, token: str, ms: int, most: int) -> list[TakenBack]:
        with self._act() as (state, _, now):
            if state.turn != token:
                return []
            gate = self._gate(now)
            paused = gate is not None and gate.reason == "paused"
            unclaimed = [one for one in state.batches.values() if one.nonce is None]
            old = sorted(
                (one.open_since, one.id) for one in unclaimed if one.open_since <= now - ms
            )
            recalled: list[TakenBack] = []
            for _, id in old[:most]:
                if sum(one.operations for one in recalled) >= TAKEN_BACK:
                    break
                batch = state.batches[id]
                watcher = self._watcher(batch.watcher)
                if paused or (watcher.claimed == 0 and not batch.probe):
                    watcher.probe = watcher.probe or not paused
                    recalled += self._take_back([id], Settlement("g"), now)
            return recalled

    # Operators

    def pause(self, ms: int) -> bool:
        with self._act() as (state, _, now):
            paused = state.paused_until
            if ms == 0:
                drained, state.draining = state.draining, False
                state.paused_until = 0
                return drained or paused == -1 or paused > now
            if paused == -1 or (ms != -1 and now + ms <= paused):
                return False
            state.paused_until = -1 if ms == -1 else now + ms
            return True

    def drain(self) -> bool:
        with self._act() as (state, _, _now):
            before, state.draining = state.draining, True
            return not before

    def shut(self, ms: int) -> bool:
        with self._act() as (_, resource, now):
            if now + ms <= resource.closed_until:
                return False
            resource.closed_until = now + ms
            return True

    def throttle(self, most_ms: int, jitter: float) -> int:
        with self._act() as (_, resource, now):
            if resource.closed_until <= now:
                last = resource.throttled_ms
                again = last > 0 and now - resource.closed_until < last
                resource.throttled_ms = min(2 * last if again else 1000, most_ms)
                ms = max(1, math.floor(resource.throttled_ms * (1 - jitter)))
                resource.closed_until = now + ms
            return resource.closed_until - now

    def counts(self) -> Counts:
        with self._act() as (state, resource, now):
            if resource.capacity is not None:
                self._lapse(now, 2**50)
            batches = state.batches.values()
            open = [batch for batch in batches if batch.nonce is None]
            running = [batch for batch in batches if batch.nonce is not None]
            delayed = [one for delayed in state.later for one in delayed.ones]
            dead = [dead for one in state.watchers.values() for dead in one.dead]
            return Counts(
                now_ms=now,
                admitted=sum(one.operations for one, _ in state.admitted.values()),
                admitted_cost=sum(one.cost for one, _ in state.admitted.values()),
                admitted_messages=len(state.admitted),
                waiting=sum(one.waiting for one in state.watchers.values()),
                waiting_cost=sum(one.waiting_cost for one in state.watchers.values()),
                delayed=len(delayed),
                delayed_cost=sum(one.entry.cost for one in delayed),
                open=sum(len(batch.entries) for batch in open),
                open_cost=sum(batch.cost for batch in open),
                open_batches=len(open),
                running=sum(len(batch.entries) for batch in running),
                running_cost=sum(batch.cost for batch in running),
                running_batches=len(running),
                done=state.done,
                dead=len(dead),
                dead_cost=sum(wire.decode_entry(one.entry)[0].cost for one in dead),
                dropped=state.dropped,
                expired_batches=state.expired,
                halved_batches=state.halved,
                late_batches=state.late,
                repaired=state.audit.repaired,
                set_aside=len(state.aside),
                paused_ms=-1 if state.paused_until == -1 else max(0, state.paused_until - now),
                draining=state.draining,
                turn_ms=max(0, state.turn_until - now),
                capacity=resource.capacity,
                held=resource.held + resource.open,
                watchers=tuple(self._row(name, now) for name in sorted(state.watchers)),
            )

    def _row(self, name: str, now: int) -> WatcherCounts:
        watcher, head = self._watcher(name), self._next(name)
        return WatcherCounts(
            name=name,
            waiting=watcher.waiting,
            waiting_cost=watcher.waiting_cost,
            delayed=sum(len(one.ones) for one in self._state.later if one.watcher == name),
            open_batches=watcher.open,
            running_batches=watcher.claimed,
            dead=len(watcher.dead),
            on_probe=watcher.probe,
            next_age_ms=max(0, now - head.entry.enqueued_ms) if head else None,
        )

    def audit(self, id: str, every_ms: int) -> AuditStep:
        with self._act() as (state, resource, now):
            known = state.audit
            if known.id == id:
                return known.step
            if known.began_ms is not None:
                wait = known.began_ms + every_ms - now
                if 0 < wait <= every_ms:
                    return AuditStep(wait, False, known.step.compared, known.step.wrong)
            open_holds = sum(
                batch.cost
                for (name, _), other in self._server.batchers.items()
                for batch in other.batches.values()
                if name == self._key[0] and batch.limited and batch.nonce is None
            )
            known.step = audit(known, counters_of(state, resource, open_holds), every_ms)
            known.id, known.began_ms = id, now
            for name in {one.watcher for one in known.step.differences if one.repaired} - {""}:
                watcher = state.watchers[name]
                for (priority, key), queue in watcher.queues.items():
                    if queue.arrived or queue.returned:
                        watcher.rings[priority].join(key)
                self._reindex(name)
            return known.step

    def set_asides(self, most: int) -> list[SetAside]:
        with self._act() as (state, _, _now):
            return state.aside[:most]

    def dead(self, watcher: str, most: int, after: int = 0) -> list[Dead]:
        with self._act():
            return [one for one in self._watcher(watcher).dead if one.number > after][:most]

    def redrive(self, watcher: str, numbers: Sequence[int]) -> int:
        with self._act() as (state, _, _now):
            redriven = []
            for letter in self._letters(watcher, numbers):
                data = wire.with_alone(wire.with_attempt(letter.entry, 1), False)
                entry = wire.decode_entry(data)[0]
                if entry.registered and entry.id in state.ids:
                    continue
                if entry.registered:
                    state.ids.add(entry.id)
                state.sequence += 1
                waiting = Waiting(state.sequence, data, entry)
                self._queue(watcher, entry).arrived.append(waiting)
                self._count_waiting(watcher, waiting)
                redriven.append(letter.number)
            self._reindex(watcher)
            return self.purge(watcher, redriven)

    def purge(self, watcher: str, numbers: Sequence[int]) -> int:
        with self._act():
            letters = self._letters(watcher, numbers)
            for letter in letters:
                self._watcher(watcher).dead.remove(letter)
            return len(letters)

    def retire(self, before_ms: int, most: int) -> int:
        with self._act() as (state, _, _now):
            retired = 0
            for watcher in state.watchers.values():
                old = sum(1 for letter in watcher.dead if letter.at_ms < before_ms)
                del watcher.dead[: min(old, most - retired)]
                retired += min(old, most - retired)
            return retired

    def facts(self) -> Facts:
        with self._act() as (_, _, now):
            return Facts(now, "noeviction", True)

    def _letters(self, watcher: str, numbers: Sequence[int]) -> list[Dead]:
        by_number = {letter.number: letter for letter in self._watcher(watcher).dead}
        return [by_number[number] for number in dict.fromkeys(numbers) if number in by_number]


def _misses(batch: Batch, settlement: Settlement) -> bool:
    """Whether outcomes were meant for the batch before a commit whose answer was lost."""
    return len(settlement.outcomes) > 1 and len(settlement.outcomes) != len(batch.entries)


def _note(claims: dict[tuple[str, str], int], id: str, nonce: str, now: int) -> bool:
    """Note a claim of the last minute; False when it is noted already."""
    for key in [key for key, at in claims.items() if at <= now - 60_000]:
        del claims[key]
    if (id, nonce) in claims:
        return False
    claims[id, nonce] = now
    return True


def _due(delayed: Delayed) -> tuple[int, int]:
    return delayed.due, delayed.ones[0].sequence


def _changed(one: Waiting, data: bytes) -> Waiting:
    """The same operation with other bytes."""
    return Waiting(one.sequence, data, wire.decode_entry(data)[0])


def _turn(
    queue: Queue, batch: Sequence[Waiting], size: int, budget: float, most: float | None
) -> tuple[list[Waiting], str]:
    """What one key gives to a batch, and why the batch is complete ("" when it is not).

    ``most`` is the weight of its turn, None when no other key waits.
    """
    n, cost = len(batch), sum(one.entry.cost for one in batch)
    total_bytes = sum(len(one.data) for one in batch)
    taken: list[Waiting] = []
    weight = 0
    length = size - n if most is None else min(size - n, TURN)
    for one in queue.peek(length):
        entry = one.entry
        if cost + entry.cost > budget:
            return taken, "capacity"
        if n and total_bytes + len(one.data) > MAX_BYTES:
            return taken, "size"
        if n and entry.single:
            return taken, "interval"
        if most is not None and taken and weight + weigh(entry.cost) > most:
            return taken, ""
        taken.append(one)
        n, cost, total_bytes = n + 1, cost + entry.cost, total_bytes + len(one.data)
        weight += weigh(entry.cost)
        if entry.single:
            return taken, "single"
    return taken, ""


def reset() -> None:
    """Forget all servers of the process; for tests."""
    _servers.clear()
