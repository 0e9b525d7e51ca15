"""The store in memory: for tests, and for apps that are one process.

It decides exactly as the Lua scripts do; one contract suite runs on both. State is shared by all
stores of the process that name the same URL and resource. The modules ``memory_*`` beside this one
are what the parts of the scripts are.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..clock import Clock, SystemClock
from . import memory_dead as letters
from . import memory_holds as holds
from . import memory_intake as intake
from . import memory_leasing as leasing
from . import memory_ledger as ledger
from . import memory_meters as meters
from .base import (
    Admission,
    Admitted,
    Arrival,
    Charge,
    Claim,
    Discarded,
    Leased,
    Limiter,
    Partition,
    Refused,
    Released,
    Settlement,
    Staged,
    Standing,
    TakenBack,
    Turn,
)
from .counts import AuditStep, Counts, Dead, Facts, SetAside
from .memory_audit import audit, counters_of
from .memory_backfills import MemoryBackfills
from .memory_counts import counts
from .memory_cutting import release
from .memory_discard import discard
from .memory_explain import explain, seek
from .memory_index import reindex, rejoin
from .memory_peek import peek
from .memory_state import Act, BatcherState, LimitState, Member, ResourceState
from .meters import BatchRecord, Readings
from .options import Limits, WatcherOptions
from .outlook import Outlook, Sought


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


class MemoryStore(MemoryBackfills):
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
    def _act(self) -> Iterator[Act]:
        with self._server.lock:
            now = self._server.clock.now_ms()
            yield Act(self._batcher, self._state, self._resource, now)

    def configure(self, limits: Limits, watchers: Sequence[WatcherOptions]) -> Standing | None:
        with self._act() as act:
            if limits.limited:
                self._configure_resource(act.resource, limits)
            for options in watchers:
                act.watcher(options.name).options = options
                reindex(act.state, options.name)
            found = tuple(one.limit for one in act.resource.limits)
            return Standing(act.resource.dimensions, found) if found else None

    def _configure_resource(self, resource: ResourceState, limits: Limits) -> None:
        own = limits.resource
        if not resource.limits:
            resource.limits = [LimitState(one) for one in limits.all]
            resource.dimensions = own.dimensions
            resource.factor, resource.reserved = own.factor, own.reserved or 0
        resource.options = own
        resource.grace_ms = max(limits.grace_ms, resource.grace_ms)
        member = resource.members.setdefault(self._batcher, Member())
        member.weight = own.weight
        member.floors = own.floor, own.backfill_floor

    # Producers

    def admit(self, admissions: Sequence[Admission], buffer_size: int) -> Admitted:
        with self._act() as act:
            return intake.admit(act, admissions, buffer_size)

    def withdraw(self, ids: Sequence[str]) -> int:
        with self._act() as act:
            return sum(intake.discharge(act, id) for id in ids)

    def repeat(self, id: str) -> bool:
        with self._act() as act:
            return intake.repeat(act, id)

    # The turn

    def want(self, ms: int, *, wake: bool = False) -> int:
        with self._act() as act:
            act.state.wanted_until = max(act.state.wanted_until, act.now + ms)
            act.state.wakes += wake
            return max(0, act.state.turn_until - act.now)

    def take_turn(self, token: str, ms: int, *, keep: bool = False) -> Turn:
        with self._act() as act:
            if act.state.turn != token:
                if keep or (act.state.turn and act.state.turn_until > act.now):
                    return Turn(False)
                act.state.turn = token
            act.state.turn_until = act.now + ms
            waiting = sum(watcher.waiting for watcher in act.state.watchers.values())
            lanes = tuple(sorted(act.state.lanes))
            return Turn(True, act.state.wanted_until - act.now, act.state.wakes, waiting, lanes)

    def leave_turn(self, token: str) -> bool:
        with self._act() as act:
            if act.state.turn != token:
                return False
            act.state.turn, act.state.turn_until = None, 0
            return True

    # Intake

    def stage(self, token: str, arrivals: Sequence[Arrival], leases: str) -> Staged:
        with self._act() as act:
            return intake.stage(act, token, arrivals)

    def forget(self, ids: Sequence[str]) -> int:
        with self._act() as act:
            return intake.forget(act, ids)

    def idle(self, watchers: Sequence[str]) -> int:
        with self._act() as act:
            return intake.idle(act, watchers)

    def void(self, ms: int, most: int) -> int:
        with self._act() as act:
            return intake.void(act, ms)

    # Batches

    def release(
        self, token: str, id: str, limits: Limits, so_far: tuple[int, int] = (0, 0)
    ) -> Released | Refused:
        with self._act() as act:
            return release(act, token, id, limits, so_far)

    def published(self, ids: Sequence[str]) -> int:
        with self._act() as act:
            return ledger.published(act, ids)

    def offer(self, token: str, most: int) -> list[Released]:
        with self._act() as act:
            return ledger.offer(act, token, most)

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        with self._act() as act:
            return ledger.claim(act, id, nonce, limits, ms)

    def renew(self, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
        with self._act() as act:
            return ledger.renew(act, id, nonce, limits, renewal)

    def charge(self, id: str, nonce: str, number: int, charge: Charge) -> bool:
        with self._act() as act:
            return ledger.charge(act, id, nonce, number, charge)

    def estimates(self, watcher: str) -> dict[str, tuple[float, ...]]:
        with self._act() as act:
            found = act.state.estimates.get(watcher, {})
            return {key: means[1:] for key, means in found.items()}

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        with self._act() as act:
            return ledger.commit(act, id, nonce, number, settlement)

    def settle(self, id: str, nonce: str, settlement: Settlement) -> bool:
        with self._act() as act:
            return ledger.settle(act, id, nonce, settlement)

    def abandon(
        self, id: str, owner: str, reason: str, *, attempt: bool = True
    ) -> TakenBack | None:
        with self._act() as act:
            return ledger.abandon(act, id, owner, reason, attempt=attempt)

    def expire(self, token: str, limits: Limits, reason: str, most: int) -> list[TakenBack]:
        with self._act() as act:
            return ledger.expire(act, token, limits, reason, most)

    def probe(self, token: str, ms: int, most: int) -> list[TakenBack]:
        with self._act() as act:
            return ledger.probe(act, token, ms, most)

    # Operators

    def pause(self, ms: int) -> bool:
        with self._act() as act:
            paused = act.state.paused_until
            if ms == 0:
                drained, act.state.draining = act.state.draining, False
                act.state.paused_until = 0
                return drained or paused == -1 or paused > act.now
            if paused == -1 or (ms != -1 and act.now + ms <= paused):
                return False
            act.state.paused_until = -1 if ms == -1 else act.now + ms
            return True

    def drain(self) -> bool:
        with self._act() as act:
            before, act.state.draining = act.state.draining, True
            return not before

    def set_capacity(
        self, capacities: Sequence[int], reserved: int | None = None
    ) -> tuple[int, ...] | None:
        with self._act() as act:
            before = tuple(one.limit.capacity for one in act.resource.limits)
            holds.set_capacity(act, capacities, reserved)
            for name in act.state.watchers:
                reindex(act.state, name)
            return before or None

    def limiter(self, token: str, ms: int, owner: str) -> Limiter:
        with self._act() as act:
            return leasing.limiter(act, token, ms, owner, counts(act).unsettled_cost)

    def lease(self, term: int, leases: Leased) -> bool:
        with self._act() as act:
            return leasing.lease(act, term, leases)

    def yield_limiter(self, token: str) -> bool:
        with self._act() as act:
            return leasing.yield_limiter(act, token)

    def leases(self) -> list[Partition]:
        with self._act() as act:
            return leasing.leases(act)

    def shut(self, ms: int) -> bool:
        with self._act() as act:
            if act.now + ms <= act.resource.closed_until:
                return False
            holds.close_until(act, act.now + ms)
            return True

    def throttle(self, most_ms: int, jitter: float) -> int:
        with self._act() as act:
            if act.resource.closed_until <= act.now:
                last = act.resource.throttled_ms
                again = last > 0 and act.now - act.resource.closed_until < last
                act.resource.throttled_ms = min(2 * last if again else 1000, most_ms)
                ms = max(1, math.floor(act.resource.throttled_ms * (1 - jitter)))
                holds.close_until(act, act.now + ms)
            return act.resource.closed_until - act.now

    def counts(self) -> Counts:
        with self._act() as act:
            return counts(act)

    def meters(self) -> Readings:
        with self._act() as act:
            return meters.readings(act)

    def recent(self, most: int) -> list[BatchRecord]:
        with self._act() as act:
            return meters.recent(act, most)

    def _open_holds(self) -> dict[str, Counter[int]]:
        """What unclaimed batches of each batcher of the resource hold, by dimension."""
        found: dict[str, Counter[int]] = {}
        for (resource, name), other in self._server.batchers.items():
            if resource == self._key[0]:
                found[name] = Counter()
                for batch in other.batches.values():
                    if batch.limited and batch.nonce is None:
                        found[name].update(dict(enumerate(batch.costs, 1)))
        return found

    def explain(
        self,
        watcher: str,
        limits: Limits,
        costs: Sequence[int] = (),
        priority: int = 0,
        key: str = "",
    ) -> Outlook:
        with self._act() as act:
            last = max((one.limit.dimension for one in act.resource.limits), default=0)
            unclaimed = {
                name: [held[d] for d in range(1, last + 1)]
                for name, held in self._open_holds().items()
            }
            return explain(act, watcher, limits, costs, priority, key, unclaimed=unclaimed)

    def seek(self, id: str, part: str, watcher: str = "", cursor: str = "") -> Sought:
        with self._act() as act:
            return seek(act, id, part, watcher)

    def peek(self, watcher: str, most: int) -> list[bytes]:
        with self._act() as act:
            return peek(act, watcher, most)

    def discard(self, id: str, part: str, watcher: str, most: int, left: int = 0) -> Discarded:
        with self._act() as act:
            return discard(act, id, part, watcher, most, left)

    def audit(self, id: str, every_ms: int) -> AuditStep:
        with self._act() as act:
            state, resource, now = act.state, act.resource, act.now
            known = state.audit
            if known.id == id:
                return known.step
            if known.began_ms is not None:
                wait = known.began_ms + every_ms - now
                if 0 < wait <= every_ms:
                    return AuditStep(wait, False, known.step.compared, known.step.wrong)
            open_holds: Counter[int] = Counter()
            for holds_of_one in self._open_holds().values():
                open_holds.update(holds_of_one)
            known.step = audit(known, counters_of(state, resource, open_holds), every_ms)
            known.id, known.began_ms = id, now
            for name in {one.watcher for one in known.step.differences if one.repaired} - {""}:
                rejoin(state, name)
            return known.step

    def set_asides(self, most: int) -> list[SetAside]:
        with self._act() as act:
            return act.state.aside[:most]

    def dead(self, watcher: str, most: int, after: int = 0) -> list[Dead]:
        with self._act() as act:
            return [one for one in act.watcher(watcher).dead if one.number > after][:most]

    def redrive(self, watcher: str, numbers: Sequence[int]) -> int:
        with self._act() as act:
            return letters.redrive(act, watcher, numbers)

    def purge(self, watcher: str, numbers: Sequence[int]) -> int:
        with self._act() as act:
            return letters.purge(act, watcher, numbers)

    def retire(self, before_ms: int, most: int) -> int:
        with self._act() as act:
            return letters.retire(act, before_ms, most)

    def facts(self) -> Facts:
        with self._act() as act:
            return Facts(act.now, "noeviction", True)


def reset() -> None:
    """Forget all servers of the process; for tests."""
    _servers.clear()
