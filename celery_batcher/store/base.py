"""The protocol of a store, and the values that cross it.

A store keeps the shared state of one batcher: books of what was admitted, the index, the ledger
of batches, and the holds of its resource. Each method is one act: it happens whole or not at all,
changes data, index and counters together, and may run twice with the same arguments: the second
time it has no effect, and answers what the first did or that there was nothing left to do. Times
are whole milliseconds of the store's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class WatcherOptions:
    """What the store must know of a watcher to release its batches.

    ``key_capacity`` and ``key_concurrency`` are caps of each key; operations without one have none.
    """

    name: str
    max_batch_size: int = 500
    max_attempts: int = 3
    max_concurrent_batches: int = 0
    weight: int = 1
    batch_by_key: bool = False
    max_dead: int = 0
    bisect: bool = True
    key_capacity: int | None = None
    key_window_ms: int = 1000
    key_concurrency: int = 0

    @property
    def capped(self) -> bool:
        """Whether its keys have caps."""
        return self.key_capacity is not None or self.key_concurrency > 0

    @property
    def by_key(self) -> bool:
        """Whether a batch has operations of one key."""
        return self.batch_by_key or self.capped


@dataclass(frozen=True, slots=True)
class Limit:
    """A capacity per window of one dimension of cost; dimensions count from 1."""

    dimension: int
    capacity: int
    window_ms: int

    def with_capacity(self, capacity: int) -> Limit:
        """The same limit of another capacity."""
        return replace(self, capacity=capacity)


@dataclass(frozen=True, slots=True)
class ResourceOptions:
    """What the store must know of a resource, but for its capacity.

    Attributes:
        dimensions: the names of costs, in order; one of none is a plain number.
        ramp: by limit, how much more may be used every ``every_ms`` after a rise; () at once.
        adaptive: half the capacity after a throttling, and then ever more.
        factor: what a leased partition is worth; None: nothing is leased.
        reserved: what needs no lease.
        weight: of this batcher among those of the resource.
        floor: the part of the capacity that it gets before others, if it needs that much.
        backfill_floor: the same for its back-fills.
    """

    dimensions: tuple[str, ...] = ("",)
    ramp: tuple[int, ...] = ()
    every_ms: int = 1000
    adaptive: bool = False
    factor: int | None = None
    reserved: int | None = None
    weight: int = 1
    floor: float = 0.0
    backfill_floor: float = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the batches of one batcher.

    ``capacity`` and ``window_ms`` are the first limit of the resource, ``others`` the further ones,
    in the order of their dimensions.
    """

    capacity: int | None = None
    window_ms: int = 1000
    others: tuple[Limit, ...] = ()
    resource: ResourceOptions = field(default_factory=ResourceOptions)
    grace_ms: int = 10
    flush_ms: int = 100
    max_open_batches: int = 256
    max_concurrent_batches: int = 0
    claim_grace_ms: int = 1000
    outage_ms: int = 2500

    @property
    def limited(self) -> bool:
        """Whether there is a resource."""
        return self.capacity is not None

    @property
    def all(self) -> tuple[Limit, ...]:
        """The limits of the resource; none without one."""
        if self.capacity is None:
            return ()
        return Limit(1, self.capacity, self.window_ms), *self.others

    @property
    def hold_ms(self) -> int:
        """How long a hold of the first limit lasts after the claim."""
        return self.window_ms + self.grace_ms


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
class WatcherCounts:
    """A watcher's row of `Counts`."""

    name: str
    waiting: int = 0
    waiting_cost: int = 0
    delayed: int = 0
    open_batches: int = 0
    running_batches: int = 0
    dead: int = 0
    on_probe: bool = False
    next_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LimitCounts:
    """A limit of the resource as it is now.

    Attributes:
        limit: its dimension, provisioned capacity and window.
        usable: what of the capacity may be used now.
        held: the cost of what started within the window, and of batches that no worker has claimed.
        debt: what was charged above its estimate and is not yet paid.
    """

    limit: Limit
    usable: int
    held: int
    debt: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a batcher, all of one moment. Costs are of operations, not of holds."""

    now_ms: int = 0
    admitted: int = 0
    admitted_cost: int = 0
    admitted_messages: int = 0
    waiting: int = 0
    waiting_cost: int = 0
    delayed: int = 0
    delayed_cost: int = 0
    open: int = 0
    open_cost: int = 0
    open_batches: int = 0
    running: int = 0
    running_cost: int = 0
    running_batches: int = 0
    done: int = 0
    dead: int = 0
    dead_cost: int = 0
    dropped: int = 0
    expired_batches: int = 0
    halved_batches: int = 0
    late_batches: int = 0
    repaired: int = 0
    set_aside: int = 0
    paused_ms: int = 0
    draining: bool = False
    turn_ms: int = 0
    limits: tuple[LimitCounts, ...] = ()
    watchers: tuple[WatcherCounts, ...] = field(default_factory=tuple)

    @property
    def capacity(self) -> int | None:
        """The capacity of the first limit; None without a resource."""
        return self.limits[0].limit.capacity if self.limits else None

    @property
    def held(self) -> int:
        """What the first limit holds."""
        return self.limits[0].held if self.limits else 0

    @property
    def buffered(self) -> int:
        """Operations not yet released."""
        return self.admitted + self.waiting + self.delayed

    @property
    def unfinished(self) -> int:
        """Operations neither done nor dead."""
        return self.buffered + self.open + self.running

    @property
    def unsettled_cost(self) -> int:
        """Cost of operations neither done nor dead."""
        before = self.admitted_cost + self.waiting_cost + self.delayed_cost
        return before + self.open_cost + self.running_cost


@dataclass(frozen=True, slots=True)
class SetAside:
    """A message that could not be read: when, which watcher's lane, why, and its bytes."""

    at_ms: int
    watcher: str
    reason: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: its number in the batcher, when the operation died, why, and its entry."""

    number: int
    at_ms: int
    reason: str
    entry: bytes


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself: its time, how it evicts, whether it writes an append-only file.

    None is what it does not tell.
    """

    now_ms: int
    eviction: str | None = None
    append_only: bool | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that was not what the data say. ``watcher`` is "" for those of the batcher.

    ``counted`` is what it said, ``recorded`` what the data amount to; ``repaired``: it was set to
    that.
    """

    name: str
    watcher: str
    counted: int
    recorded: int
    repaired: bool


@dataclass(frozen=True, slots=True)
class AuditStep:
    """What a step of the audit found.

    Attributes:
        wait_ms: milliseconds until there is more to do; 0: go on.
        over: the pass has ended with this step.
        compared: counters that were compared in this pass.
        wrong: how many of them were not what the data say.
        differences: those of this step.
        skipped: what could not be audited in this step, and why.
    """

    wait_ms: int
    over: bool = False
    compared: int = 0
    wrong: int = 0
    differences: tuple[Difference, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LimitOutlook:
    """A limit of the resource, and what it has left for the operation in question.

    Attributes:
        started: the cost of what started within the window.
        unclaimed: of released batches that no worker has claimed, of all batchers.
        credit: what a flush may release now.
        wait_ms: until there is room for the operation, as far as ends are known: 0 there is, -1
            unknown, or it costs more than what may be used.
    """

    limit: Limit
    usable: int
    started: int
    unclaimed: int
    debt: int
    credit: float
    wait_ms: int


@dataclass(frozen=True, slots=True)
class BatcherShare:
    """A batcher of the resource.

    Attributes:
        in_need: it was lately refused room or credit.
        unclaimed: what its unclaimed batches hold, by dimension.
        first: what is left to it before the operation in question, by dimension.
    """

    name: str
    weight: int
    in_need: bool
    unclaimed: tuple[int, ...]
    first: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyOutlook:
    """The caps of a key, and what they leave for the operation in question and the key's next one.

    Attributes:
        capacity: what it may start within a window; None: anything.
        concurrency: batches that it may have in flight; 0: any number.
        started: the cost of what started within the window.
        unclaimed: of its released batches that no worker has claimed.
        batches: in flight; 0 where their number has no cap.
        next_cost: of the operation of this key that is next in turn.
        wait_ms: until there is room for the dearer of the two, as far as ends are known: 0 there
            is, -1 unknown, or it costs more than the capacity.
        asked_ms: until it is asked again whether it may; -1: it does not wait.
        guard_ms: for so long nothing of it starts, because the store was restarted.
    """

    capacity: int | None
    window_ms: int
    concurrency: int
    started: int
    unclaimed: int
    batches: int
    next_cost: int
    wait_ms: int
    asked_ms: int
    guard_ms: int = 0


@dataclass(frozen=True, slots=True)
class Outlook:
    """What bears upon the next batch of a watcher, all of one moment.

    Attributes:
        guard_ms: for so long nothing starts, because the store was restarted.
        due_ms: until a delayed operation of the watcher waits again; -1: none, or not soon.
        last_due_ms: until the last delayed operation of the batcher does.
        sharing: watchers, and back-fills of watchers, that may release a batch.
        open_cost: of the watcher's unclaimed batches.
        by_priority: the watcher's waiting operations: halves of failed batches, high, normal,
            backfill.
        head: the entry of its operation next in turn, or nothing.
        keys_due_ms: all its keys that have operations wait at their caps, and none is asked again
            before; -1: not all of them do.
        key: of the operation in question; None when it has no key, or that no caps.
    """

    now_ms: int
    watcher: WatcherCounts
    paused_ms: int = 0
    closed_ms: int = 0
    guard_ms: int = 0
    turn_ms: int = 0
    draining: bool = False
    admitted: int = 0
    open_batches: int = 0
    running_batches: int = 0
    buffered: int = 0
    buffered_cost: int = 0
    due_ms: int = -1
    last_due_ms: int = 0
    sharing: int = 0
    max_concurrent_batches: int = 0
    open_cost: int = 0
    by_priority: tuple[int, ...] = (0, 0, 0, 0)
    head: bytes = b""
    limits: tuple[LimitOutlook, ...] = ()
    batchers: tuple[BatcherShare, ...] = ()
    keys_due_ms: int = -1
    key: KeyOutlook | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Where an operation is: ``waiting``, ``delayed``, ``released``, ``running`` or ``dead``.

    Attributes:
        ahead, ahead_cost: operations before it in the queue of its watcher, priority and key.
        ms: since it was released or died; until it waits again, or its batch's deadline.
        reason: why it is dead.
    """

    state: str
    watcher: str
    entry: bytes
    ahead: int = 0
    ahead_cost: int = 0
    batch: str = ""
    ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Sought:
    """A step of a search: operations looked at, and where to go on; "" at the end of the part."""

    looked: int
    cursor: str = ""
    found: Found | None = None


class Store(Protocol):
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

    def release(self, token: str, id: str, limits: Limits) -> Released | Refused:
        """Release one batch under this id, if everything allows it.

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

    def shut(self, ms: int) -> bool:
        """Close the resource for the whole fleet; True when that made it longer."""

    def throttle(self, most_ms: int, jitter: float) -> int:
        """Close the resource for a time that doubles while it is asked for again and again.

        ``jitter`` is the part of the time that is left out. Returns how long it is closed.
        """

    def counts(self) -> Counts:
        """The numbers of this moment."""

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
