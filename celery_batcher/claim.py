"""What a worker does with a batch: claim it, call the handler in time, settle."""

from __future__ import annotations

import logging
import os
import random
import socket
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import compress, count
from typing import Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from . import tracing, wire
from .announcing import Announcer
from .batch import Batch
from .charges import Charges, Lesson, lessons
from .clock import Clock
from .config import milliseconds
from .costs import PLAIN, Cost, costs_of
from .enqueuing import Patience
from .errors import ClaimExpiredError, StoreUnavailableError, Throttled
from .events import Listeners
from .operation import Operation, new_id
from .outcomes import BACK, DONE, Outcome, RetryPolicy, reason_of
from .reporting import Report
from .results import Results
from .store.base import Charge, Settlement, Store
from .store.options import Limits
from .worker.stopping import HandlerStopped, is_stopped, told_to_end

logger = logging.getLogger("celery_batcher")

_LONGEST_THROTTLE = 60_000
_JITTER = 0.5
"""Up to half of the time a resource is closed for is left out: fleets shall not ask in step."""
_UNDECIDED = Outcome("-")
_WORDS = {
    "d": "done",
    "r": "retried",
    "a": "retried",
    "h": "halved",
    "g": "given_back",
    "x": "failed",
}
_RENEWALS = 10
"""Times that a late handler's hold is renewed before its batch is given back."""


def owner(pid: int) -> str:
    """What the nonces of a process's claims begin with."""
    return f"{socket.gethostname()}/{pid}"


@dataclass(frozen=True, slots=True)
class Claimant:
    """Everything that running one batch of one watcher needs.

    ``cost_key`` is the cost key of a payload, where the watcher estimates its costs.
    """

    app: Celery
    store: Store
    clock: Clock
    limits: Limits
    operation_time: float
    watcher: str
    handler: Callable[[Batch], Any]
    listeners: Listeners
    emit_batch: bool
    announcer: Announcer = field(default_factory=Announcer)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    max_attempts: int = 0
    soft_limited: bool = False
    results: Results | None = None
    dimensions: tuple[str, ...] = PLAIN
    cost_key: Callable[[Any], str] | None = None
    caps_keys: bool = False

    def run(self, batch_id: str) -> dict[str, Any]:
        """Claim the batch and handle it; return what became of it.

        Raises:
            Whatever the handler raised, after its operations were given back.
            ClaimExpiredError: the handler outlived its claim; others have its operations.
        """
        nonce = f"{owner(os.getpid())}/{new_id()}"
        before = self.clock.monotonic()
        lifetime = milliseconds(self.operation_time) + self.limits.claim_grace_ms
        accept = wire.accepted(self.app.conf.accept_content)
        claim = self.store.claim(batch_id, nonce, self.limits, lifetime)
        if claim.state != "claimed":
            return {"batch": claim.state}
        opened = wire.open_blocks(claim.blocks, self.watcher, accept, self.dimensions)
        if opened.reason:
            logger.error("%s: %s", self.watcher, opened.reason)
        deadline = before + (claim.remaining_ms - self.limits.claim_grace_ms) / 1000
        claimed = _Claimed(self, batch_id, nonce, opened, deadline)
        batch = claimed.batch
        if self.emit_batch:  # before time is taken: a slow listener makes a handler start late
            self.listeners.emit("batch", len(batch), self.watcher, list(batch.operations))
        self.announcer.started(batch)

        def handle() -> dict[str, Any]:
            try:
                in_time = self._in_time(batch_id, nonce, before)
            except BaseException:
                claimed.settle(lambda _: BACK, state="late")
                raise
            if not in_time:
                claimed.settle(lambda _: BACK, state="late")
                return {"batch": "late", "given_back": len(opened.outcomes)}
            return claimed.handle()

        return tracing.process(batch, opened.contexts, handle)

    def _in_time(self, batch_id: str, nonce: str, before: float) -> bool:
        """Whether the hold covers a handler that starts now; it is renewed when it may not."""
        if not self.limits.limited and not self.caps_keys:
            return True
        # The store's times are whole milliseconds, so a hold may end up to one too early.
        covered = (self.limits.grace_ms - 1) / 1000
        for _ in range(_RENEWALS):
            passed = self.clock.monotonic() - before
            if passed <= covered:
                return True
            before = self.clock.monotonic()
            if not self.store.renew(batch_id, nonce, self.limits, new_id()):
                return False
        logger.warning(
            "%s: %.0f ms from the claim to the handler, more than start_grace (%d ms) allows: "
            "the batch is given back. Raise start_grace if the store is that far away",
            self.watcher,
            passed * 1000,
            self.limits.grace_ms,
        )
        return False


class _Claimed:
    """A claimed batch on its way through the handler."""

    def __init__(
        self, claimant: Claimant, id: str, nonce: str, opened: wire.Opened, deadline: float
    ) -> None:
        self._claimant = claimant
        self._id = id
        self._nonce = nonce
        self._opened = opened
        numbers = count()
        # What the store has in the batch: positions of operations, None where one is unreadable.
        self._left = [None if one == "x" else next(numbers) for one in opened.outcomes]
        self._commits = 0
        self._unrecorded: tuple[int, list[Outcome]] | None = None
        self._became: Counter[str] = Counter()
        said = [one.cost for one in opened.operations]
        self._charges = Charges(said, claimant.dimensions)
        self.batch = Batch(
            id,
            claimant.watcher,
            opened.operations,
            deadline,
            claimant.clock,
            policy=claimant.policy,
            record=self.commit,
            check=None if claimant.soft_limited else self._check,
            settle_costs=self.charge,
        )
        self._report = Report(claimant.announcer, self.batch, opened.unread, claimant.max_attempts)
        self._out_of_time = self._ended = False

    def handle(self) -> dict[str, Any]:
        """Call the handler and settle; return what became of the operations."""
        claimant, batch = self._claimant, self.batch
        try:
            if batch:
                claimant.handler(batch)
        except Throttled as exc:
            try:
                self._throttle(exc.retry_after)
            finally:
                self.settle(BACK, state="throttled", error=exc)
            return {"batch": "throttled", **self._summary()}
        except BaseException as exc:
            if self._worker_ends(exc):
                self.settle(BACK, state="stopped")
                if isinstance(exc, SystemExit):
                    raise
                return {"batch": "stopped", **self._summary()}
            reason = reason_of(traceback.format_exc(limit=-20))
            undecided = claimant.policy.after_error(exc, self._undecided(), reason)
            self.settle(undecided, reason, state="failed", error=exc)
            if halved := self._became["h"]:
                claimant.listeners.emit("bisect", halved, claimant.watcher, self._id)
            raise
        self.settle(DONE, state="done")
        charged = {"charged": self._charges.total()} if self._charges.number else {}
        return {"done": 0, **self._summary(), "cost": batch.cost, **charged}

    def _throttle(self, retry_after: float | None) -> None:
        """Close the resource for the whole fleet: for so long, or for longer every time."""
        claimant = self._claimant
        if retry_after is None:
            ms = claimant.store.throttle(_LONGEST_THROTTLE, _JITTER * random.random())
        else:
            ms = milliseconds(max(0.0, retry_after))
            claimant.store.shut(ms)
        claimant.announcer.throttled(self.batch, ms)

    def _worker_ends(self, error: BaseException) -> bool:
        """Whether the handler was broken off because its worker ends. A killed one was too slow."""
        if is_stopped(self._id):
            return not isinstance(error, Exception)
        return told_to_end(error) and self.batch.remaining > 0

    def _check(self) -> None:
        """The handler looks at the batch: may it go on? No signal tells it, unless it is prefork's.

        Raises:
            SoftTimeLimitExceeded: the operation time is over; once, as a signal would come.
            HandlerStopped: the worker ends.
        """
        if is_stopped(self._id):
            raise HandlerStopped
        if not self._out_of_time and self.batch.remaining <= 0:
            self._out_of_time = True
            raise SoftTimeLimitExceeded

    def _summary(self) -> dict[str, int]:
        summary: Counter[str] = Counter()
        for kind, word in _WORDS.items():
            summary[word] += self._became[kind]
        return dict(+summary)

    def _undecided(self) -> list[Operation]:
        pending, operations = self.batch.decisions.pending, self._opened.operations
        return [operations[at] for at in self._left if at is not None and at not in pending]

    def commit(self) -> None:
        """Record what is decided; the undecided stay in the batch.

        Raises:
            ClaimExpiredError: the claim had ended before.
            SoftTimeLimitExceeded: it came meanwhile; what was decided is recorded.
        """
        interrupted = self._send_unrecorded()
        if self.batch.decisions.pending:
            self._commits += 1
            self._unrecorded = self._commits, self._outcomes(_UNDECIDED)
            interrupted = self._send_unrecorded() or interrupted
        if interrupted is not None:
            raise interrupted

    def _send_unrecorded(self) -> SoftTimeLimitExceeded | None:
        """Record a commit. One that may or may not be recorded is sent again before all else."""
        if self._unrecorded is None:
            return None
        number, outcomes = self._unrecorded
        settlement = _settlement(outcomes, "", ())
        store = self._claimant.store
        interrupted = self._until_recorded(
            lambda: store.commit(self._id, self._nonce, number, settlement)
        )
        self._unrecorded = None
        interrupted = self._store_results(outcomes) or interrupted
        interrupted = self._report.recorded(self._left, outcomes, "") or interrupted
        decided = [one is not _UNDECIDED for one in outcomes]
        self._became.update(compress((one.kind for one in outcomes), decided))
        left = list(zip(self._left, outcomes, decided, strict=True))
        self._left = [at for at, _, is_decided in left if not is_decided]
        self.batch.decisions.committed(
            {at: one for at, one, is_decided in left if is_decided and at is not None}
        )
        return interrupted

    def charge(self, found: Sequence[tuple[int, Cost]]) -> None:
        """Record what operations really cost, and what is to be learned from it.

        Raises:
            InvalidCostError: one has other dimensions than the capacity.
            ClaimExpiredError: the claim had ended before.
            SoftTimeLimitExceeded: it came meanwhile; the charge is recorded.
        """
        claimant, charges = self._claimant, self._charges
        actual = {at: costs_of(cost, claimant.dimensions) for at, cost in found}
        learned: tuple[Lesson, ...] = ()
        if claimant.cost_key is not None:
            payloads = {at: self._opened.operations[at].payload for at in actual}
            learned = lessons(claimant.watcher, claimant.cost_key, payloads, actual)
        charge = Charge(charges.add(actual), learned)
        number = charges.number  # a charge that never arrives is made good by the next
        interrupted = self._until_recorded(
            lambda: claimant.store.charge(self._id, self._nonce, number, charge)
        )
        if interrupted is not None:
            raise interrupted

    def settle(
        self,
        undecided: Outcome | Callable[[Operation], Outcome],
        reason: str = "",
        *,
        state: str,
        error: BaseException | None = None,
    ) -> None:
        """Record the outcome of all operations, until the store has it.

        Args:
            undecided: what becomes of operations that the handler left undecided.
            reason: why, for those whose outcome has no other reason.
            state: how the handler ended.
            error: what it raised, if that is the reason.

        Raises:
            ClaimExpiredError: the claim had ended before.
        """
        self._send_unrecorded()
        outcomes = self._outcomes(undecided)
        settlement = _settlement(outcomes, reason, self._registered())
        store = self._claimant.store
        self._until_recorded(lambda: store.settle(self._id, self._nonce, settlement))
        self._became.update(one.kind for one in outcomes)
        self._store_results(outcomes, error, reason)
        self._report.recorded(self._left, outcomes, reason)
        self._report.settled(self._became, state, error)

    def _store_results(
        self, outcomes: Sequence[Outcome], error: BaseException | None = None, reason: str = ""
    ) -> SoftTimeLimitExceeded | None:
        """Store the results of what was recorded, where the watcher keeps them."""
        results, operations = self._claimant.results, self._opened.operations
        if results is None:
            return None
        recorded = zip(self._left, outcomes, strict=True)
        known = [(operations[at], outcome) for at, outcome in recorded if at is not None]
        return results.store(known, error, reason)

    def _outcomes(self, undecided: Outcome | Callable[[Operation], Outcome]) -> list[Outcome]:
        """What becomes of each operation that is left, in the store's order."""
        pending, operations = self.batch.decisions.pending, self._opened.operations
        if isinstance(undecided, Outcome):
            if not pending and None not in self._left:
                return [undecided] * len(self._left)
            the_same = undecided
            undecided = lambda _: the_same  # noqa: E731
        unreadable = Outcome("x", reason_of(self._opened.reason))
        return [
            unreadable if at is None else pending.get(at) or undecided(operations[at])
            for at in self._left
        ]

    def _registered(self) -> list[bytes]:
        """Ids to forget when all that is left is done."""
        registered = self._opened.registered
        if not self._commits:
            return list(registered.values())
        return [registered[at] for at in self._left if at in registered]

    def _until_recorded(self, act: Callable[[], bool]) -> SoftTimeLimitExceeded | None:
        """Send until the store has answered; returns the soft limit that came meanwhile, if any.

        It comes once, and the claim's grace is for what is left to do.
        """
        claimant = self._claimant
        if self._ended:
            raise self._expired()
        grace = claimant.limits.claim_grace_ms / 1000
        deadline = claimant.clock.monotonic() + claimant.operation_time + grace
        patience = Patience(claimant.clock, deadline)
        interrupted: SoftTimeLimitExceeded | None = None
        while True:
            try:
                try:
                    recorded = act()
                except StoreUnavailableError:
                    if patience.over():
                        raise
                    continue
            except SoftTimeLimitExceeded as exc:
                interrupted = exc
                continue
            if recorded:
                return interrupted
            self._ended = True
            raise self._expired()

    def _expired(self) -> ClaimExpiredError:
        claimant = self._claimant
        return ClaimExpiredError(
            f"batch {self._id} of {claimant.watcher}: its claim of "
            f"{claimant.operation_time} s (and grace) had ended before it was settled; "
            "its operations were given to others. Raise max_operation_time, or do less a batch"
        )


def _settlement(
    outcomes: Sequence[Outcome], reason: str, registered: Sequence[bytes]
) -> Settlement:
    kinds = "".join([one.kind for one in outcomes])
    return Settlement(
        outcomes=kinds[:1] if kinds == kinds[:1] * len(kinds) else kinds,
        reason=reason,
        reasons={
            at: one.reason for at, one in enumerate(outcomes) if one.reason not in ("", reason)
        },
        delays={at: one.delay_ms for at, one in enumerate(outcomes) if one.delay_ms},
        forget=registered,
    )
