"""The protocol of a store, and the values that cross it.

A store keeps the shared state of one batcher: books of what was admitted, the index, the ledger
of batches, and the holds of its resource. Each method is one act: it happens whole or not at all,
changes data, index and counters together, and may run twice with the same arguments: the second
time it has no effect, and answers what the first did or that there was nothing left to do. Times
are whole milliseconds of the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .backfills import BackfillStore
from .counts import AuditStep, Counts, Dead, Facts, SetAside
from .meters import BatchRecord, Readings
from .options import Limit, Limits, WatcherOptions
from .outlook import Outlook, Sought


@dataclass(frozen=True, slots=True)
class Admission:
    """A message about to be published: its id, watcher, operations and their cost."""

    id: str
    watcher: str
    operations: int
    cost: int


@dataclass(frozen=True, slots=True)
class Admitted:
    """How many of the messages were admitted, and the operations now in the buffer.

    ``too_dear``: the sum of all costs would have passed 2**53 - 1. ``draining``: the batcher takes
    no more.
    """

    messages: int
    buffered: int
    too_dear: bool = False
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to whoever asks for the turn."""

    mine: bool
    wanted_ms: int = 0
    wakes: int = 0
    waiting: int = 0
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message of a watcher's lane on its way into the index.

    ``lease`` names it among the leases of this database, or is "" when the lane is elsewhere.
    ``fault`` is the reason to set it aside, or "".
    """

    id: str
    watcher: str
    entries: bytes
    lease: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Staged:
    """What became of arrivals; ``lost`` when the turn was another's and nothing was done."""

    operations: int = 0
    duplicates: int = 0
    set_aside: int = 0
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """A batch in the ledger; ``further`` are its costs in dimensions beyond the first."""

    id: str
    watcher: str
    operations: int
    cost: int
    trigger: str
    oldest_ms: int
    further: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing was released, and when to ask again (milliseconds; -1: when something changes).

    Reasons: ``lost`` (another has the turn), ``empty``, ``capacity``, ``credit``, ``open``,
    ``concurrency``, ``paused``, ``closed``, ``guard`` (the store was restarted).

    ``freed``: operations wait, and within the last flush interval others cost less than was said:
    there may be room again at any moment.
    """

    reason: str
    wait_ms: int
    freed: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim: ``claimed``, ``wait``, ``taken``, ``gone`` or ``recalled``.

    ``blocks`` are those of the operations, laid end to end.
    """

    state: str
    blocks: bytes = b""
    remaining_ms: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of the operations of a claimed batch.

    Attributes:
        outcomes: a character for each, or one for all: ``d`` done, ``r`` again with one attempt
            more, ``a`` the same and alone in its batch from then on, ``h`` again in two halves
            that meet no others, ``g`` back to its place, ``x`` dead, ``-`` undecided (in
            `Store.commit`).
        reason: why; for those that have none of their own.
        reasons: by position, the reasons of single operations.
        delays: by position, milliseconds after which an operation that is tried again waits.
            Halves wait for the longest of theirs.
        forget: ids of the registered operations; needed only when all are done.
    """

    outcomes: str = "d"
    reason: str = ""
    reasons: Mapping[int, str] = field(default_factory=dict)
    delays: Mapping[int, int] = field(default_factory=dict)
    forget: Sequence[bytes | str] = ()


@dataclass(frozen=True, slots=True)
class Charge:
    """What operations of a claimed batch really cost.

    Attributes:
        differences: by dimension, how much more than was said, or less (negative): the sum of all
            charges of this claim, so that one that never arrived is made good by the next.
        learned: samples for the estimates of the watcher: cost key and costs.
    """

    differences: tuple[int, ...]
    learned: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Limiter:
    """The answer to whoever asks for the right to lease.

    Attributes:
        term: the number of its term, which is another one whenever another limiter had the right
            before; 0: the right is another's.
        owner: the fleet's id, for lease managers.
        needs: cost of everything neither done nor dead, in all batchers of the resource.
        capacity, reserved: as the store has them.
        hold_ms: how long holds last, with the longest grace of the batchers.
        now_ms: the store's time.
    """

    term: int
    owner: str
    needs: int
    capacity: int
    reserved: int
    hold_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class Leased:
    """Partitions that are leased, and until when, in the store's time.

    ``lacking`` is what the partition ``last`` is worth less than the others.
    """

    partitions: Mapping[int, int]
    last: int = -1
    lacking: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What the store says of a resource: names of dimensions, and limits."""

    dimensions: tuple[str, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True)
class Died:
    """An operation that became a dead letter in its last attempt."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A batch that went back to the index, but for those of its operations that ``died`` of it.

    Only the answer says so, once: when it is lost, the act that is sent again finds no batch.
    """

    id: str
    watcher: str
    operations: int
    died: tuple[Died, ...] = ()


@dataclass(frozen=True, slots=True)
class Discarded:
    """A step of a purge: operations removed, delayed ones left so far, whether the part is over."""

    operations: int
    left: int = 0
    over: bool = False


@dataclass(frozen=True, slots=True)
class Partition:
    """A leased partition: its number, what it is worth, and milliseconds until its lease ends."""

    number: int
    capacity: int
    ms: int


class Store(BackfillStore, Protocol):
    """Where the shared state of one batcher lives."""

    @property
    def url(self) -> str:
        """Where it is, without passwords."""

    def configure(self, limits: Limits, watchers: Sequence[WatcherOptions]) -> Standing | None:
        """Write options as the code has them, and the limits of a resource that has none yet.

        Returns the resource as it now stands in the store; None when it has none.
        """

    # Producers

    def admit(self, admissions: Sequence[Admission], buffer_size: int) -> Admitted:
        """Enter messages in the books, in order, as many as the buffer has room for."""

    def withdraw(self, ids: Sequence[str]) -> int:
        """Undo admissions of messages that were certainly not published."""

    def repeat(self, id: str) -> bool:
        """Whether a message whose publishing broke off must be published again.

        False when it has arrived. Otherwise it is published again under the same id, and of two
        that arrive the second is dropped.
        """

    # The turn

    def want(self, ms: int, *, wake: bool = False) -> int:
        """Note that flushing is wanted; return how long the present turn lasts, 0: none."""

    def take_turn(self, token: str, ms: int, *, keep: bool = False) -> Turn:
        """Take the turn if it is free, or (``keep``) only lengthen one's own."""

    def leave_turn(self, token: str) -> bool:
        """Give the turn back."""

    # Intake

    def stage(self, token: str, arrivals: Sequence[Arrival], leases: str) -> Staged:
        """Move messages into the index, each once.

        ``leases`` is the key of their leases, or "". Leased messages come from the oldest on, none
        left out.
        """

    def forget(self, ids: Sequence[str]) -> int:
        """Forget messages whose acknowledgement has arrived; return how many are noted."""

    def idle(self, watchers: Sequence[str]) -> int:
        """Unmark lanes that were seen empty, unless the books expect a message; return how many."""

    def void(self, ms: int, most: int) -> int:
        """Void admissions whose lane was seen empty ``ms`` after they were made, a step a call."""

    # Batches

    def release(
        self, token: str, id: str, limits: Limits, so_far: tuple[int, int] = (0, 0)
    ) -> Released | Refused:
        """Release one batch under this id, if everything allows it.

        ``so_far``: batches and operations that this flush has released. A refusal, unless the turn
        is lost, ends the flush, and counts it under the id: that of no other.

        Before that, operations whose delay is over wait again, some hundred at a time.
        """

    def published(self, ids: Sequence[str]) -> int:
        """Note that the tasks of batches were published; return how many are unclaimed."""

    def offer(self, token: str, most: int) -> list[Released]:
        """Unclaimed batches whose task is due to be published (again)."""

    def claim(self, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
        """Take a batch for a handler that has ``ms`` until its deadline."""

    def renew(self, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
        """Start the hold anew; False when it or the claim has ended, or nothing may start now."""

    def commit(self, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
        """Record the outcomes decided so far, the ``number``-th time for this claim.

        What is undecided stays in the batch, and positions count anew. False: the claim had ended,
        which is counted, once a claim.
        """

    def settle(self, id: str, nonce: str, settlement: Settlement) -> bool:
        """Record the outcomes of all that is still in the batch; False: the claim had ended.

        That is counted, once a claim.
        """

    def charge(self, id: str, nonce: str, number: int, charge: Charge) -> bool:
        """Settle what operations really cost, the ``number``-th time for this claim.

        What is less is free at once, what is more becomes the resource's debt, until it is taken
        back or releases have paid it. False: the claim had ended.
        """

    def estimates(self, watcher: str) -> dict[str, tuple[float, ...]]:
        """By cost key, the means of what operations were charged, by dimension."""

    def abandon(
        self, id: str, owner: str, reason: str, *, attempt: bool = True
    ) -> TakenBack | None:
        """Take back a claimed batch at once, if the claim's nonce begins with its owner.

        As if it had failed; or (``attempt=False``) as it was. None: the owner has no such claim, or
        has it no more.
        """

    def expire(self, token: str, limits: Limits, reason: str, most: int) -> list[TakenBack]:
        """Take back batches whose deadline has passed, some at a time, as if they had failed.

        A batch of more than one is halved where its watcher bisects; else the attempt counts.
        """

    def probe(self, token: str, ms: int, most: int) -> list[TakenBack]:
        """Recall batches of watchers that claimed nothing for ``ms``, some at a time.

        Their watchers are on probe from then on.
        """

    # Operators

    def pause(self, ms: int) -> bool:
        """Pause for ``ms``, until resumed (-1), or resume (0); True when that changed anything.

        To resume ends a drain as well.
        """

    def drain(self) -> bool:
        """Admit nothing more, until resumed; True when that changed anything."""

    def set_capacity(
        self, capacities: Sequence[int], reserved: int | None = None
    ) -> tuple[int, ...] | None:
        """Set the capacities of all limits; return those before, None without a resource."""

    def limiter(self, token: str, ms: int, owner: str) -> Limiter:
        """Take or keep the right to lease for the resource, if no other limiter has it.

        ``owner`` becomes the fleet's id if it has none.
        """

    def lease(self, term: int, leases: Leased) -> bool:
        """Note what is leased, in place of what was before; False when the term is over."""

    def yield_limiter(self, token: str) -> bool:
        """Give back the right to lease."""

    def leases(self) -> list[Partition]:
        """The partitions that are leased now, by number."""

    def shut(self, ms: int) -> bool:
        """Close the resource for the whole fleet; True when that made it longer."""

    def throttle(self, most_ms: int, jitter: float) -> int:
        """Close the resource for a time that doubles while it is asked for again and again.

        ``jitter`` is the part of the time that is left out. Returns how long it is closed.
        """

    def counts(self) -> Counts:
        """The numbers of this moment."""

    def meters(self) -> Readings:
        """All counters and histograms, since ever."""

    def recent(self, most: int) -> list[BatchRecord]:
        """The batches that were released last, the newest first, 100 at most."""

    def explain(
        self,
        watcher: str,
        limits: Limits,
        costs: Sequence[int] = (),
        priority: int = 0,
        key: str = "",
    ) -> Outlook:
        """What bears upon an operation of a watcher, of such costs, priority and key.

        Without costs it is the watcher's operation next in turn. It changes nothing.
        """

    def seek(self, id: str, part: str, watcher: str = "", cursor: str = "") -> Sought:
        """Look for an operation, a bounded step a call.

        Parts are ``batches`` and ``delayed`` of the batcher; ``heads`` (the first of each queue),
        ``waiting`` and ``dead`` of the watcher.
        """

    def peek(self, watcher: str, most: int) -> list[bytes]:
        """The entries of a watcher's operations that wait, those next in turn first.

        Those whose key waits at its caps are last. At least one, and not many beyond 1 MiB. It
        changes nothing.
        """

    def discard(self, id: str, part: str, watcher: str, most: int, left: int = 0) -> Discarded:
        """Remove operations for good, a bounded step a call; ``id`` names the step.

        Parts are ``waiting`` of the watcher, and ``delayed`` of the watcher or, without one, of
        all: go on with what was ``left`` before.
        """

    def audit(self, id: str, every_ms: int) -> AuditStep:
        """Compare counters with the data, a bounded step a call, while others change both.

        A pass takes many steps, and begins ``every_ms`` after the one before began. A difference
        that three passes on end saw is repaired. ``id`` names the step.
        """

    def set_asides(self, most: int) -> list[SetAside]:
        """The oldest set-aside messages."""

    def dead(self, watcher: str, most: int, after: int = 0) -> list[Dead]:
        """The oldest dead letters of a watcher whose numbers are above ``after``."""

    def redrive(self, watcher: str, numbers: Sequence[int]) -> int:
        """Let dead letters wait as new operations; return how many do.

        One whose registered id lives again stays dead.
        """

    def purge(self, watcher: str, numbers: Sequence[int]) -> int:
        """Remove dead letters for good; return how many there were."""

    def retire(self, before_ms: int, most: int) -> int:
        """Remove dead letters of before a time, of all watchers; return how many there were."""

    def facts(self) -> Facts:
        """What the server says of itself."""
