"""What must hold after every step, whatever went wrong; and what must be so in the end.

The oracle sees every effect on store and broker and every handler that starts. It keeps books of
its own and compares them with what the store has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery_batcher import wire
from celery_batcher.intakes.memory import MemoryLanes
from celery_batcher.store.base import Refused, Released
from celery_batcher.store.counts import Counts

from .capacity import Capacity
from .claims import Claimed, Claims
from .pictures import HALVES, Picture
from .world import World

UNTOUCHING = frozenset(
    [
        "want",
        "take_turn",
        "leave_turn",
        "counts",
        "dead",
        "drain",
        "set_asides",
        "pause",
        "idle",
        "forget",
        "published",
    ]
)
TAKING = frozenset(["abandon", "expire", "probe", "offer", "void", "retire"])
"""Acts after which no picture is taken: of no operation, or of none this time."""


@dataclass(slots=True)
class Account:
    """What the oracle knows of one operation.

    ``promise``: "pending" while its producer has no answer, "accepted", "refused", or "uncertain".
    """

    promise: str = "pending"
    sends: int = 1
    done: int = 0
    dead: bool = False
    redriven: bool = False
    gone: bool = False


@dataclass(slots=True)
class Running:
    """A handler that was given operations, and how it ended: "" while it runs."""

    batch: str
    tokens: list[tuple[bytes, int]]
    claim: Claimed
    halves: bool
    how: str = ""


@dataclass
class Oracle:
    """Books of one schedule.

    Args:
        capacity: books of the resource.
        picture: reads the store.
        every: how many effects lie between two pictures.
    """

    world: World
    capacity: Capacity
    picture: Callable[[], Picture]
    lanes: MemoryLanes
    every: int = 1
    accounts: dict[bytes, Account] = field(default_factory=dict)
    messages: dict[str, list[bytes]] = field(default_factory=dict)
    executions: dict[tuple[bytes, int], Running] = field(default_factory=dict)
    handled: Counter[bytes] = field(default_factory=Counter)
    draining: bool = False
    done: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    _admitted_by: dict[Any, set[str]] = field(default_factory=dict)
    _letters: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _released: set[str] = field(default_factory=set)
    _unchecked: int = 0
    _delayed: bool = False
    _waiting: bool = False

    def __post_init__(self) -> None:
        self.claims = Claims(self.world, self._finish, self.happened)
        self.capacity.happened = self.happened

    # What producers promise

    def offered(self, token: bytes) -> None:
        """A producer begins to enqueue an operation, for the first time or again."""
        self._admitted_by.pop(self.world.current, None)
        account = self.accounts.get(token)
        if account is None:
            self.accounts[token] = Account()
        else:
            account.sends += 1

    def left_no_trace(self) -> None:
        """The producer that acts now was told that nothing was enqueued of what was not before."""
        admitted = self._admitted_by.pop(self.world.current, set()) - self.messages.keys()
        for id in self.picture().admitted & admitted:
            self.world.fail(f"refusal: the message {id} was refused, and is expected")

    def promised(self, tokens: Iterable[bytes], promise: str) -> None:
        """An answer for the producer of these operations. One that was accepted stays so."""
        for token in tokens:
            account = self.accounts[token]
            if account.promise == "accepted" or (account.sends > 1 and promise == "refused"):
                continue
            account.promise = promise

    # What handlers do

    def started(
        self, batch: str, costs: Sequence[int], tokens: list[tuple[bytes, int]], halves: bool
    ) -> Running:
        """A handler starts now: is there capacity for it, and may these attempts be made?

        Args:
            costs: by dimension.
            halves: whether a batch of its watcher that fails is tried again in halves.
        """
        running = Running(batch, tokens, self.claims.last_of(batch), halves)
        self.capacity.started(batch, costs)
        for at in tokens:
            self._check_attempt(at, running)
            self.executions[at] = running
            self.handled[at[0]] += 1
        return running

    def _check_attempt(self, at: tuple[bytes, int], running: Running) -> None:
        token, attempt = at
        before, account = self.executions.get(at), self.accounts.get(token)
        if account is None or account.promise == "refused":
            self.world.fail(f"refusal: {_name(token)} was refused, and is handled")
            return
        if before is None or account.sends > 1 or account.redriven:
            return
        if running.halves and 2 * len(running.tokens) <= len(before.tokens) + 1:
            # The half of a batch that failed: no attempt, and nobody's any more.
            self.happened["operations tried again in halves"] += 1
            if not before.claim.ended:
                self.world.fail(f"one batch: {_name(token)} is handled, and {before.batch} is too")
        elif before.how == "":
            self.world.fail(f"one batch: two handlers have attempt {attempt} of {_name(token)}")
        elif before.how != "back":
            self.world.fail(
                f"one attempt: attempt {attempt} of {_name(token)} is made again after it "
                f"{before.how}"
            )

    # What takes effect

    def saw(self, name: str, args: tuple[Any, ...], answer: Any) -> None:
        """A call took effect."""
        for book in (self, self.claims):
            watch = getattr(book, f"saw_{name}", None)
            if watch is not None:
                watch(args, answer)
        self.capacity.saw(name, args, answer)
        if name in UNTOUCHING or (name in TAKING and not answer):
            return
        if name == "release" and isinstance(answer, Refused) and not self._delayed:
            return
        self._unchecked += 1
        if self._unchecked >= self.every:
            self.check()

    def saw_publish(self, args: tuple[Any, ...], _: Any) -> None:
        for message in args[0]:
            entries = wire.decode_entries(message.entries)
            self.messages[message.admission.id] = [one.payload for one in entries]

    def saw_pause(self, args: tuple[Any, ...], _: Any) -> None:
        self.draining = self.draining and args[0] != 0

    def saw_counts(self, _: Any, answer: Counts) -> None:
        """Whoever drains is told by this that nothing is left."""
        if self.draining and not answer.unfinished:
            self.happened["drains that ended"] += 1
            for token, account in self.accounts.items():
                ended = account.done or account.dead or account.gone
                if account.promise == "accepted" and not ended:
                    self.world.fail(f"drain: nothing was left, but {_name(token)} had not ended")

    def saw_drain(self, _: tuple[Any, ...], __: Any) -> None:
        self.draining = True

    def saw_admit(self, args: tuple[Any, ...], _: Any) -> None:
        self._admitted_by.setdefault(self.world.current, set()).update(one.id for one in args[0])

    def saw_stage(self, args: tuple[Any, ...], answer: Any) -> None:
        if answer.lost or self.every > 1:
            return
        for id in self.picture().admitted.intersection(one.id for one in args[1]):
            self.world.fail(f"books: the message {id} has arrived and is still expected")

    def _finish(self, token: bytes) -> None:
        account = self.accounts[token]
        account.done += 1
        self.done += 1
        if account.done > account.sends:
            self.world.fail(f"done once: {_name(token)} is done {account.done} times")

    def saw_dead(self, args: tuple[Any, ...], answer: Any) -> None:
        for letter in answer:
            token = wire.decode_entry(letter.entry)[0].payload
            self._letters[args[0], letter.number] = token

    def saw_redrive(self, args: tuple[Any, ...], _: Any) -> None:
        for number in args[1]:
            self.accounts[self._letters[args[0], number]].redriven = True

    def saw_purge(self, args: tuple[Any, ...], _: Any) -> None:
        for number in args[1]:
            self.accounts[self._letters[args[0], number]].gone = True

    def saw_release(self, args: tuple[Any, ...], answer: Any) -> None:
        """G5: what a batch takes of a queue comes before all that is left in it.

        Halves of what failed are before all queues, and in no order with what waits there.
        """
        if isinstance(answer, Refused) and answer.reason == "empty":
            self._check_empty()
        if not isinstance(answer, Released) or args[1] in self._released:
            return
        self._released.add(args[1])
        if self.every > 1:
            return
        if answer.trigger == "bisect":
            return
        picture = self.picture()
        last = {one.queue: one.sequence for one in picture.batches[args[1]].operations}
        for one in picture.waiting:
            if one.queue[1] == HALVES and one.queue[0] == answer.watcher:
                self.world.fail(f"order: {_name(one.token)} waits in halves, others do not")
            if one.sequence < last.get(one.queue, 0):
                self.world.fail(f"order: {_name(one.token)} was overtaken in its queue")

    def _check_empty(self) -> None:
        """Nothing can be released: then nothing waits that has no batch ahead and is affordable."""
        if not self._waiting:
            return
        picture = self.picture()
        ahead = {one.watcher for one in picture.batches.values()}
        dear = {one.queue[0] for one in picture.waiting if not self.capacity.affords(one.costs)}
        for one in picture.waiting:
            if one.queue[0] not in ahead | dear:
                self.world.fail(f"forgotten: {_name(one.token)} waits, and nothing is released")

    # After every step

    def check(self) -> Picture:
        """Compare the books with the store and the lanes."""
        picture = self.picture()
        self._unchecked, self._delayed = 0, bool(picture.delayed)
        self._waiting = self.every > 1 or bool(picture.waiting)
        self.capacity.check()
        for drift in picture.wrong:
            self.world.fail(f"counters: {drift}")
        places: dict[bytes, str] = {}
        for place, one in picture.live():
            if one.token in places:
                where = f"{places[one.token]} and {place}"
                self.world.fail(f"one batch: {_name(one.token)} is in {where}")
            places[one.token] = place
        dead = {one.token for one in picture.dead}
        self._check_accounts(places.keys() | dead, dead)
        return picture

    def _check_accounts(self, stored: set[bytes], dead: set[bytes]) -> None:
        travelling = self._travelling()
        for token, account in self.accounts.items():
            here = token in stored
            account.dead = token in dead
            if here or token in travelling:
                if account.promise == "refused":
                    self.world.fail(f"refusal: {_name(token)} was refused, and is here")
            elif account.promise == "accepted" and not account.done and not account.gone:
                self.world.fail(f"lost: {_name(token)} was accepted, and is nowhere")

    def _travelling(self) -> set[bytes]:
        """Operations in lanes, those that a turn has under lease included."""
        found: set[bytes] = set()
        for queue in self.lanes.queues.values():
            for one in queue:
                found.update(self.messages[one.arrival.id])
        for leases in self.lanes.leases.values():
            for one in leases.values():
                found.update(self.messages[one.arrival.id])
        return found

    # In the end

    def unfinished(self, picture: Picture) -> int:
        """Operations that are neither done nor dead, wherever they are; and batches without any."""
        emptied = sum(not batch.operations for batch in picture.batches.values())
        return sum(1 for _ in picture.live()) + emptied + len(self._travelling())

    def check_end(self, counts: Any, picture: Picture) -> None:
        """Everything ended, and nothing is left of it."""
        fail = self.world.fail
        for token, account in self.accounts.items():
            if account.promise == "accepted" and not (account.done or account.dead or account.gone):
                fail(f"every operation ends: {_name(token)} did not")
        numbers = {
            "needs_capacity": counts.unsettled_cost,
            "buffered": counts.buffered,
            "batches": counts.open_batches + counts.running_batches,
            "batches in the ledger": len(picture.batches),
            "messages expected": len(picture.admitted),
            "travelling": len(self._travelling()),
        }
        for name, number in (numbers | self.capacity.leftovers()).items():
            if number:
                fail(f"leftovers: {name} is {number} in the end")
        if counts.done != self.done:
            fail(f"counters: {counts.done} were done, the handlers did {self.done}")
        if counts.dead != len(picture.dead):
            fail(f"counters: {counts.dead} are dead, the data say {len(picture.dead)}")


def _name(token: bytes) -> str:
    return token.decode()
