"""What stands in for the store, the broker and the threads of a batcher while it is tested."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery import Celery

from .announcing import Announcer
from .checks import Checker, Problem
from .clock import ManualClock
from .connections import Connections
from .duties import Duties
from .errors import ConfigurationError, ImproperOrderError
from .estimates import Estimates
from .intakes.base import Intake
from .intakes.memory import MemoryIntake, MemoryLanes
from .leases.memory import MemoryLeaseManager
from .operation import new_id
from .publishers.base import Outgoing
from .publishers.memory import MemoryPublisher
from .resources.shared import SharedResource
from .store.backfills import Chunk
from .store.base import Admission, Claim, Died, Refused, Released, Settlement
from .store.memory import MemoryServer, MemoryStore
from .store.options import Limits
from .tasks import find_batcher
from .turn import Turn, TurnThread

if TYPE_CHECKING:
    from .batcher import Batcher
    from .records import Records

_OWN = (
    "clock",
    "_connect",
    "_connections",
    "_announcer",
    "_checker",
    "_duties",
    "_turn",
    "_started",
    "_stopped",
)
"""What of a batcher is swapped for the time of a test."""
_UPKEEP = 1.0
"""Seconds between two looks of a turn at what is late; from two beats on it would be an outage."""


class Place:
    """What a server is to batchers that are tested together: their store, lanes and time."""

    def __init__(self, clock: ManualClock, records: Records) -> None:
        self.clock = clock
        self.records = records
        self.server = MemoryServer(clock)
        self.lanes = MemoryLanes()


class StandIn:
    """Stands in for what one batcher is connected to, from `enter` to `leave`."""

    def __init__(self, batcher: Batcher, place: Place) -> None:
        self.batcher = batcher
        self.due: deque[Released] = deque()
        self.idle = 0.0  # seconds until the next operation is due, when none is now
        self._place = place
        self._saved: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._turn: Turn | None = None
        self._token = new_id()

    def enter(self) -> None:
        """Swap what the batcher has for what stands in for it.

        Raises:
            ImproperOrderError: it is being tested already, or flushes in this process.
            ConfigurationError: a later batcher has taken its name.
        """
        batcher = self.batcher
        if isinstance(batcher.clock, RehearsalClock):
            raise ImproperOrderError(
                f"batcher {batcher.name} is being tested already: end that `with` block first, or "
                "use what it gave"
            )
        if batcher._turn.alive:
            raise ImproperOrderError(
                f"batcher {batcher.name} flushes in this process: stop() it before it is tested"
            )
        if find_batcher(batcher.app, batcher.name) is not batcher:
            raise ConfigurationError(
                f"batcher {batcher.name} of app {batcher.app.main} was replaced by a later one of "
                "this name: test that"
            )
        own = vars(batcher)
        self._save(own, _OWN)
        own.update(clock=self._place.clock, _connect=self._connect, _connections=None)
        own.update(_announcer=_Announcer(self), _checker=_Checker(batcher))
        own.update(_started=False, _stopped=False)
        own["_duties"] = _Duties(self, batcher._announcer, batcher._checker)
        own["_turn"] = _NoThread(batcher.name, batcher._duties)
        for watcher in batcher.watchers.values():
            self._save(vars(watcher), ("handler", "estimates"))
            if watcher.estimates is not None:
                cost_key = watcher.estimates._cost_key
                watcher.estimates = Estimates(batcher, watcher.name, cost_key)
        self._enter_resource()

    def _enter_resource(self) -> None:
        resource = self.batcher.rate_limiter
        own = getattr(resource, "__dict__", None)
        if own is None:
            return
        self._save(own, tuple(own))
        if isinstance(resource, SharedResource):
            own.update(vars(_alike(resource, self._place.clock)), _batcher=own["_batcher"])

    def _save(self, own: dict[str, Any], names: Sequence[str]) -> None:
        self._saved.append((own, {name: own[name] for name in names}))

    def leave(self) -> None:
        """Give the batcher back what it had."""
        while self._saved:
            own, values = self._saved.pop()
            own.update(values)

    def _connect(self, app: Celery, *, batcher: str, resource: str) -> Connections:
        place = self._place
        store = _Store(place.server, batcher=batcher, resource=resource)
        store.stand_in = self
        publisher = _Publisher(place.lanes, batcher)
        publisher.stand_in = self
        return _InMemory(app, batcher, store, publisher, lanes=place.lanes)

    @property
    def records(self) -> Records:
        """Where it is kept what happens."""
        return self._place.records

    def flush(self) -> float:
        """Flush once, now; return the seconds until there may be something to do again."""
        duties = self.batcher._duties
        self.batcher.flush()  # so that the turn's next step is one
        if self._turn is None:
            self._turn = Turn(duties, self._token)
            self._turn.take()
            duties.configure()
        flusher, rhythm = duties.flusher(self._token), duties.rhythm()
        self._turn.look()
        self._turn.wanted(rhythm)
        wait = self._turn.step(flusher, rhythm, duties.limits())
        while wait == 0.0:  # there is more in the lanes than one look takes
            wait = self._turn.step(flusher, rhythm, duties.limits())
        return max(wait, self.idle)

    def keep_up(self) -> None:
        """What a turn would have done while a handler took its time: take back what is late."""
        duties = self.batcher._duties
        duties.flusher(self._token).upkeep(duties.limits())


class RehearsalClock(ManualClock):
    """The time of a test. Others go on while a handler lets it pass, or while somebody waits.

    Args:
        upkeep: what a turn does every now and then while handlers run.
        meanwhile: all that happens while somebody waits.
    """

    def __init__(self, upkeep: Callable[[], object], meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._upkeep = upkeep
        self._meanwhile = meanwhile

    def advance(self, seconds: float) -> None:
        while seconds > _UPKEEP:
            super().advance(_UPKEEP)
            self._upkeep()
            seconds -= _UPKEEP
        super().advance(seconds)
        self._upkeep()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.advance(seconds)
        self._meanwhile()
        return event.is_set()


@dataclass(frozen=True, slots=True)
class _InMemory(Connections):
    lanes: MemoryLanes = field(default_factory=MemoryLanes)

    def fits(self, app: Celery) -> bool:
        return self.app is app

    def intake(self) -> Intake:
        return MemoryIntake(self.lanes, self.batcher)


class _Publisher(MemoryPublisher):
    """Notes what is enqueued."""

    stand_in: StandIn

    def publish(self, messages: Sequence[Outgoing]) -> None:
        super().publish(messages)
        self.stand_in.records.enqueued(self.stand_in.batcher, messages)


class _Store(MemoryStore):
    """Notes what back-fills bring, what is claimed, and what becomes of it."""

    stand_in: StandIn

    def fill(self, name: str, token: str, ms: int, watcher: str, chunk: Chunk, most: int) -> str:
        answer = super().fill(name, token, ms, watcher, chunk, most)
        if answer == "taken":
            message = Outgoing(Admission(name, watcher, chunk.rows, chunk.cost), chunk.entries)
            self.stand_in.records.enqueued(self.stand_in.batcher, [message])
        return answer

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        claim = super().claim(id, nonce, limits, ms)
        if claim.state == "claimed":
            figures = [one.limit for one in self._resource.limits] if limits.limited else []
            self.stand_in.records.started(self.stand_in.batcher, id, claim.blocks, figures)
        return claim

    def release(
        self, token: str, id: str, limits: Limits, so_far: tuple[int, int] = (0, 0)
    ) -> Released | Refused:
        answer = super().release(token, id, limits, so_far)
        if isinstance(answer, Refused):
            self.stand_in.idle = answer.wait_ms / 1000 if answer.reason == "empty" else 0.0
        return answer

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        recorded = super().commit(id, nonce, number, settlement)
        if recorded:
            self.stand_in.records.decided(id, settlement)
        return recorded

    def settle(self, id: str, nonce: str, settlement: Settlement) -> bool:
        recorded = super().settle(id, nonce, settlement)
        if recorded:
            self.stand_in.records.decided(id, settlement)
        return recorded


class _Announcer(Announcer):
    """Sends no events, for there is no broker, and notes what dies."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in.batcher)
        self._records = stand_in.records

    @property
    def _sends_events(self) -> bool:
        return False

    def _heard(self, signal: Any) -> bool:
        return bool(signal.receivers)

    def dead(self, watcher: str, batch_id: str, died: Sequence[tuple[Died, str]]) -> None:
        self._records.died(watcher, died)
        super().dead(watcher, batch_id, died)


class _Checker(Checker):
    """Finds nothing: there is no server, and nobody else's clock."""

    def all(self, timeout: float) -> list[Problem]:
        return []

    def local(self) -> list[Problem]:
        return []


class _Duties(Duties):
    """Keeps batches for the test to run, and leases without a thread."""

    def __init__(self, stand_in: StandIn, announcer: Announcer, checker: Checker) -> None:
        super().__init__(stand_in.batcher, stand_in.batcher._listeners, announcer, checker)
        self._stand_in = stand_in

    def publish(self, batches: Sequence[Released]) -> list[str]:
        self._stand_in.due.extend(batches)
        self._stand_in.records.released(batches)
        return [one.id for one in batches]

    def limit(self) -> None:
        self.limiter.step()


class _NoThread(TurnThread):
    """Never begins: the test flushes."""

    def ensure(self, *, unasked: bool = False, after: float = 0.0) -> None:
        """Nothing: whatever is asked of it, the test does."""

    @property
    def alive(self) -> bool:
        return False


def _alike(resource: SharedResource, clock: ManualClock) -> SharedResource:
    """A resource of the same figures whose leases are in memory."""
    own = vars(resource)
    manager = own["_manager"]
    leases = manager and MemoryLeaseManager(lease_time=manager.lease_time, clock=clock)
    return SharedResource(
        own["_shared"],
        reserved_capacity=resource.reserved_capacity,
        factor=resource.factor,
        lease_manager=leases,
        max_interval=own["_max_interval"],
        name=resource.name,
        window=resource.window,
        clock=clock,
    )
