"""A watcher: a named handler of batches, and the way to enqueue operations for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import wire
from .backfill import Backfill
from .batch import Batch
from .config import BACKFILL_OPTIONS, Option, check_name, check_value, checked, count, milliseconds
from .costs import Cost, check_cost
from .dead_letters import DeadLetters
from .errors import EnqueueError
from .estimates import Estimates
from .operation import Operation, new_id
from .outcomes import RetryPolicy
from .packing import (
    PACK,
    Attributes,
    Encoded,
    check_dedupe,
    check_priority,
    check_text,
    dedupe_id,
    dedupe_ms,
    pipelines,
)
from .store.options import WatcherOptions

if TYPE_CHECKING:
    from .batcher import Batcher

_T = TypeVar("_T")
_PACK = Option(PACK, count(1, wire.MAX_OPERATIONS), f"1 to {wire.MAX_OPERATIONS} operations")


class Watcher:
    """A handler of batches, made by `Batcher.watcher`; its Celery task has the same name.

    Calling it calls the handler, for tests of one's own.
    """

    def __init__(
        self,
        batcher: Batcher,
        handler: Callable[[Batch], Any],
        name: str,
        cost: Cost | Callable[[Any], Cost],
        options: dict[str, Any],
    ) -> None:
        self.batcher = batcher
        self.handler = handler
        self.name = name
        self.cost = cost
        self.queue: str | None = None
        self.keeps_results = False
        self.max_batch_size: int = options["max_batch_size"]
        self.max_attempts: int = options["max_attempts"]
        self.max_operation_time: float | None = options["max_operation_time"]
        self.max_concurrent_batches: int | None = options["max_concurrent_batches"]
        self.weight: int = options["weight"]
        self.key_capacity: int | None = options["key_capacity"]
        self.key_window: float = options["key_window"]
        self.key_concurrency: int | None = options["key_concurrency"]
        self.batch_by_key: bool = options["batch_by_key"] or self.caps_keys
        self.max_dead_letters: int = options["max_dead_letters"]
        self.estimates: Estimates | None = None
        if options["estimate"]:
            self.estimates = Estimates(batcher, name, options["cost_key"])
        self.retry_policy = RetryPolicy(
            **{one.name: options[one.name] for one in fields(RetryPolicy)}
        )
        self.__doc__ = handler.__doc__
        self.__name__ = getattr(handler, "__name__", name)
        self.__module__ = handler.__module__

    def __repr__(self) -> str:
        return f"<Watcher {self.name} of {self.batcher.name}>"

    def __call__(self, batch: Batch) -> Any:
        return self.handler(batch)

    @property
    def caps_keys(self) -> bool:
        """Whether its keys have caps."""
        return self.key_capacity is not None or self.key_concurrency is not None

    @property
    def operation_time(self) -> float:
        """Seconds that the handler has for a batch."""
        return self.max_operation_time or float(self.batcher.option("max_operation_time"))

    @property
    def dead_letters(self) -> DeadLetters:
        """Its operations that failed for good."""
        return DeadLetters(self)

    def store_options(self) -> WatcherOptions:
        """What the store must know."""
        return WatcherOptions(
            name=self.name,
            max_batch_size=self.max_batch_size,
            max_attempts=self.max_attempts,
            max_concurrent_batches=self.max_concurrent_batches or 0,
            weight=self.weight,
            batch_by_key=self.batch_by_key,
            max_dead=self.max_dead_letters,
            bisect=self.retry_policy.bisect,
            key_capacity=self.key_capacity,
            key_window_ms=milliseconds(self.key_window),
            key_concurrency=self.key_concurrency or 0,
        )

    def cost_of(self, payload: Any) -> Cost:
        """The cost of an operation whose producer says none: an estimate, or the watcher's."""
        learned = None if self.estimates is None else self.estimates.of(payload)
        if learned is not None:
            return learned
        return self.cost(payload) if callable(self.cost) else self.cost

    def operation(
        self,
        payload: Any,
        *,
        cost: Cost | None = None,
        key: str | None = None,
        priority: str = "normal",
        batchable: bool = True,
        id: str | None = None,
        dedupe_key: str | None = None,
        dedupe_for: float | timedelta = 0,
    ) -> Operation:
        """Make an operation, for `Batcher.enqueue`. Nothing is enqueued.

        Args:
            payload: what the handler needs; anything the serializer can carry, up to 1 MiB.
            cost: units of capacity, an integer from 0, or a mapping of them where the capacity has
                dimensions; by default what the watcher estimates, or its own.
            key: operations of one key are released in order, keys take turns and may have caps
                (docs/keys.md); up to 255 bytes.
            priority: ``high``, ``normal`` or ``backfill``.
            batchable: False keeps it alone in a batch.
            id: the caller's own, up to 255 bytes: enqueuing it again while it lives does nothing.
            dedupe_key: of the watcher's operations with the same one, the first is taken; others
                are dropped while it lives, and for ``dedupe_for`` seconds after its arrival
                (docs/deduplication.md). Its id follows from watcher and dedupe_key.

        Raises:
            InvalidCostError: the cost is negative, fractional or no number.
            ConfigurationError: key, id, priority, dedupe_key or cost key are not what they should
                be.
        """
        check_dedupe(dedupe_key, dedupe_for, id)
        if cost is None:
            cost = self.cost_of(payload)
        if key is not None:
            check_text(key, "key", wire.MAX_KEY)
        if id is not None:
            check_text(id, "id", wire.MAX_ID)
        check_priority(priority)
        dedupe = None
        if dedupe_key is not None:
            id, dedupe = dedupe_id(self.name, dedupe_key), dedupe_ms(dedupe_for) / 1000
        return Operation(
            id=id or new_id(),
            watcher=self.name,
            cost=check_cost(cost),
            payload=payload,
            batchable=batchable,
            key=key,
            priority=priority,
            dedupe_for=dedupe,
        )

    def enqueue(
        self,
        payload: Any,
        *,
        cost: Cost | None = None,
        key: str | None = None,
        priority: str = "normal",
        batchable: bool = True,
        id: str | None = None,
        dedupe_key: str | None = None,
        dedupe_for: float | timedelta = 0,
    ) -> str:
        """Enqueue one operation; return its id. Once this returns, it is not lost.

        The arguments are those of `operation`. What is dropped as a duplicate is dropped when it
        arrives in the index: this returns the id of the one that was taken.

        Raises:
            InvalidCostError, TooExpensiveError, PayloadError: it could never run.
            BufferFullError: there was no room for ``enqueue_timeout`` seconds.
            StoreUnavailableError, BrokerUnavailableError: nothing was enqueued.
            EnqueueUncertainError: enqueue again with its id.
            BatcherStoppedError: the batcher was stopped in this process, or is being drained.
        """
        return self.batcher.enqueue(
            self.operation(
                payload,
                cost=cost,
                key=key,
                priority=priority,
                batchable=batchable,
                id=id,
                dedupe_key=dedupe_key,
                dedupe_for=dedupe_for,
            )
        )

    def enqueue_many(
        self,
        payloads: Iterable[_T],
        *,
        cost: Cost | Callable[[_T], Cost] | None = None,
        key: str | Callable[[_T], str | None] | None = None,
        priority: str | Callable[[_T], str] = "normal",
        batchable: bool | Callable[[_T], bool] = True,
        id: Callable[[_T], str] | None = None,
        dedupe_key: str | Callable[[_T], str | None] | None = None,
        dedupe_for: float | timedelta = 0,
        pack: int = PACK,
    ) -> int:
        """Enqueue operations in bulk, in order and in constant memory; return their number.

        Args:
            payloads: any iterable; it is read once, as fast as the buffer takes it.
            cost, key, priority, batchable: one for all, or a function of the payload.
            id: a function of the payload that gives each operation an id of its own; then
                enqueuing the same payloads again is safe while the operations live.
            dedupe_key: one for all, or a function of the payload; None: no duplicate of any.
            dedupe_for: seconds, for all.
            pack: operations in one message, 1 to 1,000. More is faster, and less memory.

        Raises:
            As `enqueue`; the error's ``enqueued`` says how many of the first payloads were
            enqueued. Payloads behind a faulty one are not enqueued.
        """
        check_value(_PACK, "pack", pack, "enqueue_many")
        pack = min(pack, self.batcher.option("buffer_size"))
        if cost is None:
            cost = self.cost if self.estimates is None else self.cost_of
        check_dedupe(dedupe_key, dedupe_for, id)
        dedupe = dedupe_ms(dedupe_for)
        attributes = Attributes(cost, key, priority, batchable, id, dedupe_key, dedupe)
        faults: list[Exception] = []
        entries = _until_fault(self.batcher.encoder(self).many(payloads, attributes), faults)
        enqueued = 0
        try:
            for messages in pipelines(self.name, entries, pack):
                self.batcher.send(messages)
                enqueued += sum(one.admission.operations for one in messages)
        except EnqueueError as exc:
            exc.enqueued += enqueued
            raise
        for fault in faults:
            cast(Any, fault).enqueued = enqueued
            raise fault
        return enqueued

    def backfill(
        self,
        name: str,
        *,
        total: int | Callable[[], int] | None = None,
        queue: str | None = None,
        **options: Any,
    ) -> Callable[[Callable[[Any], Iterable[Any]]], Backfill]:
        """Decorate a function that yields rows of a source; it becomes a back-fill of this watcher.

        The function takes a checkpoint, None at the beginning, and yields what comes after it, in
        the same order each time: a `Row` each, or a payload (docs/backfills.md).

        Args:
            name: of the back-fill in the batcher: letters, digits, ``_`` and ``-``.
            total: how many rows there are, or a function that says so when a run begins: for
                progress and ETA.
            queue: the Celery queue of its task; by default Celery's routing.
            options: ``priority`` (backfill) of rows that have none; ``max_waiting`` (50,000): it
                waits while the buffer holds so many operations; ``chunk`` (500): rows that are
                brought at once; ``lease_time`` (30.0 s): how soon another may run it when the
                process that does is dead; ``slice`` (60.0 s): how long its task runs until it sends
                the next.

        Raises:
            ConfigurationError: an option is unknown or wrong, or another function has the name.
            InvalidNameError: a key of the store could not carry the name.
        """
        values = {key: option.default for key, option in BACKFILL_OPTIONS.items()}
        values |= checked(BACKFILL_OPTIONS, options, "backfill")

        def register(rows: Callable[[Any], Iterable[Any]]) -> Backfill:
            check_name(name, "back-fill")
            return self.batcher.add_backfill(
                Backfill(self, name, rows, total=total, queue=queue, **values)
            )

        return register


def _until_fault(entries: Iterator[Encoded], faults: list[Exception]) -> Iterator[Encoded]:
    """Entries up to the first payload that is faulty; its error is kept, for later."""
    try:
        yield from entries
    except Exception as exc:  # noqa: BLE001 - enqueue_many raises it, behind the others
        faults.append(exc)
