"""A batch: what a handler gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, overload

from .clock import Clock
from .config import DELAY, check_value
from .costs import Cost, check_cost, total
from .operation import Operation
from .outcomes import DONE, Decisions, Outcome, RetryPolicy, reason_of


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Operation]):
    """Operations of one watcher, released together: a sequence of them.

    A handler may decide about each. What it leaves undecided is done when it returns, tried again
    when it raises, and given back when it raises `Throttled`.

    Attributes:
        id: the id of the batch, and of its Celery task.
        watcher: the name of the watcher.
        operations: what to handle, in order.
        deadline: when the claim ends, on the process's monotonic clock.
    """

    id: str
    watcher: str
    operations: tuple[Operation, ...]
    deadline: float
    clock: Clock
    policy: RetryPolicy = field(default_factory=RetryPolicy, repr=False, compare=False)
    record: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    check: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    settle_costs: Callable[[Sequence[tuple[int, Cost]]], None] | None = field(
        default=None, repr=False, compare=False
    )
    decisions: Decisions = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decisions", Decisions(self.operations))

    @property
    def cost(self) -> Cost:
        """The sum of the operations' costs; by dimension where they have them."""
        return total(operation.cost for operation in self.operations)

    @property
    def remaining(self) -> float:
        """Seconds until the operation time is over; negative when it is."""
        return self.deadline - self.clock.monotonic()

    def done(self, operation: Operation, result: Any = None) -> None:
        """The operation is done, whatever happens to the others.

        Args:
            result: what `app.AsyncResult(operation.id).get()` returns where the watcher keeps
                results (``ignore_result=False``); elsewhere it is dropped.

        Raises:
            OutcomeError: it is not of this batch, or its outcome is committed already.
        """
        self.decisions.decide(operation, DONE if result is None else Outcome("d", result=result))

    def retry(self, operation: Operation, *, after: float | timedelta | None = None) -> None:
        """Try the operation again: it counts as an attempt, and after the last it is dead.

        Operations of its key that come behind it do not wait for it.

        Args:
            after: seconds until it waits again, a number or a timedelta; by default what the
                watcher's backoff says.

        Raises:
            ConfigurationError: it is no time.
            OutcomeError: it is not of this batch, or its outcome is committed already.
        """
        seconds = None if after is None else check_value(DELAY, "after", after, "Batch.retry")
        reason = f"its handler asked for another try in attempt {operation.attempt}, the last"
        self.decisions.decide(operation, self.policy.retry(operation, reason, seconds))

    def fail(self, operation: Operation, reason: str) -> None:
        """The operation is dead at once; the reason is kept with it.

        Raises:
            OutcomeError: it is not of this batch, or its outcome is committed already.
        """
        self.decisions.decide(operation, Outcome("x", reason_of(reason)))

    def charge(self, operation: Operation, actual: Cost) -> None:
        """Settle what the operation really cost, whatever becomes of it.

        What is less than its cost is free at once for others; what is more becomes the debt of the
        resource, and releases wait until it is paid. Charged again, the newest counts. Where the
        watcher estimates its costs, each charge teaches. It is one call of the store: charge many
        operations with `charge_many`.

        Args:
            actual: an integer from 0, or one for each dimension of the capacity.

        Raises:
            InvalidCostError: it is no cost, or has other dimensions than the capacity.
            OutcomeError: the operation is not of this batch.
            ClaimExpiredError: the claim had ended; others have the operations.
            StoreUnavailableError: the store did not answer until the claim had ended.
        """
        self.charge_many([(operation, actual)])

    def charge_many(self, actuals: Iterable[tuple[Operation, Cost]]) -> None:
        """Settle what operations really cost, as `charge` does, in one call of the store.

        Args:
            actuals: pairs of an operation and its cost. If one of them is faulty, none counts.

        Raises:
            As `charge`.
        """
        found = [
            (self.decisions.position_of(operation), check_cost(actual))
            for operation, actual in actuals
        ]
        if found and self.settle_costs is not None:
            self.settle_costs(found)

    def commit(self) -> None:
        """Record what is decided so far: a worker that dies afterwards does not undo it.

        Raises:
            ClaimExpiredError: the claim had ended; others have the operations.
            StoreUnavailableError: the store did not answer until the claim had ended.
        """
        if self.record is not None and self.decisions.pending:
            self.record()
        if self.check is not None:
            self.check()

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations) if self.check is None else self._while_in_time(self.check)

    def _while_in_time(self, check: Callable[[], None]) -> Iterator[Operation]:
        for operation in self.operations:
            check()
            yield operation

    @overload
    def __getitem__(self, index: int) -> Operation: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...

    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        return self.operations[index]
