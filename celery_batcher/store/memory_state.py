"""The state that the store in memory keeps, and the act that works on it."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from .. import wire
from ..fairness import FairRing
from .backfills import BackfillState
from .base import Admission, Discarded, Released
from .counts import Dead, SetAside
from .memory_audit import AuditState
from .meters import RECENT, BatchRecord, FlushRecord, Place
from .options import Limit, ResourceOptions, WatcherOptions


@dataclass(slots=True)
class Waiting:
    """An operation in the index."""

    sequence: int
    data: bytes
    entry: wire.Entry

    def changed(self, data: bytes) -> Waiting:
        """The same operation with other bytes."""
        return Waiting(self.sequence, data, wire.decode_entry(data)[0])


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
class KeyHold:
    """What a batch holds of its key; until it is claimed without an end."""

    cost: int
    ends: int | None = None


@dataclass(slots=True)
class KeyState:
    """What a capped key holds, and whether it waits, outside of its rings, with these groups.

    ``urgent_first``: its back-fills wait until its urgent operations have had a batch.
    """

    holds: dict[str, KeyHold] = field(default_factory=dict)
    flights: set[str] = field(default_factory=set)
    waits: bool = False
    urgent_first: bool = False
    aside: list[list[Waiting]] = field(default_factory=list)


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
    tags: list[float] = field(default_factory=lambda: [0.0, 0.0])
    queues: defaultdict[tuple[int, str], Queue] = field(default_factory=lambda: defaultdict(Queue))
    rings: tuple[FairRing, ...] = field(
        default_factory=lambda: tuple(FairRing() for _ in wire.PRIORITIES)
    )
    by_priority: list[int] = field(default_factory=lambda: [0] * len(wire.PRIORITIES))
    together: list[list[Waiting]] = field(default_factory=list)
    keys: dict[str, KeyState] = field(default_factory=dict)
    dead: list[Dead] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """A batch in the ledger."""

    id: str
    watcher: str
    entries: list[Waiting]
    cost: int
    costs: tuple[int, ...]
    trigger: str
    oldest: int
    released: int
    open_since: int
    limited: bool
    probe: bool
    offers: int = 0
    published: bool = False
    nonce: str | None = None
    started: int = 0
    deadline: int = 0
    decided: Counter[Place] = field(default_factory=Counter)
    decided_cost: int = 0
    ends: list[int] = field(default_factory=list)
    renewal: str | None = None
    commits: int = 0
    charges: int = 0
    owed: list[int] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)
    key: str | None = None
    holds_key: bool = False

    def describe(self, now: int) -> Released:
        return Released(
            self.id,
            self.watcher,
            len(self.entries),
            self.cost,
            self.trigger,
            now - self.oldest,
            self.costs[1:],
        )


@dataclass(slots=True)
class LimitState:
    """A limit of a resource, and what it holds with an end.

    ``start`` and ``step``: since `ResourceState.from_ms` its capacity comes in steps.
    """

    limit: Limit
    held: int = 0
    ends: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    debt: int = 0
    credit: float = 0.0
    refund: float = 0.0
    start: int | None = None
    step: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """A batch that was refused room or credit, and until when others leave it that much.

    From ``covered`` on its batcher's floor covers ``floor`` of its costs. A batch takes ``step`` of
    virtual time; ``most`` could be used at once.
    """

    rank: int
    tag: float
    until: int
    covered: int
    step: float
    most: int
    costs: tuple[int, ...]
    floor: tuple[int, ...]


@dataclass(slots=True)
class Party:
    """A class of a batcher among those of a resource: its virtual time, what its floor earned."""

    tag: float = 0.0
    earned: float = 0.0
    earned_ms: int | None = None
    need: Need | None = None


@dataclass(slots=True)
class Member:
    """A batcher among those of a resource: what is urgent, and its back-fills."""

    weight: int = 1
    floors: tuple[float, float] = (0.0, 0.0)
    parties: tuple[Party, Party] = field(default_factory=lambda: (Party(), Party()))


@dataclass(slots=True)
class ResourceState:
    """Limits, credit and the batchers of one resource."""

    dimensions: tuple[str, ...] = ()
    limits: list[LimitState] = field(default_factory=list)
    open: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    options: ResourceOptions = field(default_factory=ResourceOptions)
    grace_ms: int = 0
    from_ms: int = 0
    factor: int | None = None
    reserved: int = 0
    leases: dict[int, int] = field(default_factory=dict)
    last: int = -1
    lacking: int = 0
    owner: str = ""
    needs: dict[str, tuple[int, int]] = field(default_factory=dict)
    limiter: str | None = None
    limiter_until: int = 0
    term: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    times: list[float] = field(default_factory=lambda: [0.0, 0.0])
    credit_ms: int | None = None
    closed_until: int = 0
    throttled_ms: int = 0
    freed_ms: int = 0

    @property
    def every_ms(self) -> int:
        return self.options.every_ms


@dataclass(slots=True)
class Backfill:
    """A back-fill, and the token of who runs it."""

    state: BackfillState
    token: str = ""


@dataclass(slots=True)
class BatcherState:
    """Everything of one batcher."""

    watchers: dict[str, WatcherState] = field(default_factory=dict)
    watcher_rings: tuple[FairRing, FairRing] = field(
        default_factory=lambda: (FairRing(), FairRing())
    )
    parked: dict[str, int] = field(default_factory=dict)
    key_ends: dict[tuple[str, str], int] = field(default_factory=dict)
    estimates: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    offers: dict[str, int] = field(default_factory=dict)
    settled: dict[tuple[str, str], int] = field(default_factory=dict)
    admitted: dict[str, tuple[Admission, int]] = field(default_factory=dict)
    lanes: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    deduped: dict[str, int] = field(default_factory=dict)
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
    duplicates: int = 0
    expired: int = 0
    halved: int = 0
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    late: int = 0
    backfills: dict[str, Backfill] = field(default_factory=dict)
    audit: AuditState = field(default_factory=AuditState)
    discarded: tuple[str, Discarded] = ("", Discarded(0))
    meters: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    flushes: Counter[str] = field(default_factory=Counter)
    flush_id: str | None = None
    last_flush: FlushRecord | None = None
    recent: deque[BatchRecord] = field(default_factory=lambda: deque(maxlen=RECENT))

    def watcher(self, name: str) -> WatcherState:
        """The watcher of this name, which exists from now on."""
        if name not in self.watchers:
            self.watchers[name] = WatcherState(WatcherOptions(name))
        return self.watchers[name]


@dataclass(frozen=True, slots=True)
class Act:
    """One act of a store: whose it is, what it works on, and when."""

    batcher: str
    state: BatcherState
    resource: ResourceState
    now: int

    def watcher(self, name: str) -> WatcherState:
        return self.state.watcher(name)
