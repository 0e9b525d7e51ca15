"""What is kept of a test: what was enqueued, which batches ran, what became of operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import wire
from .clock import ManualClock
from .costs import Cost, named
from .operation import Operation
from .outcomes import Outcome, is_final
from .publishers.base import Outgoing
from .store.base import Died, Released, Settlement
from .store.options import Limit

if TYPE_CHECKING:
    from .batcher import Batcher

_BECAME = {"d": "done", "r": "retried", "a": "retried", "h": "halved", "g": "given_back"}


@dataclass(slots=True)
class CapturedBatch:
    """A batch that ran in a test.

    Attributes:
        id: of the batch and its Celery task.
        watcher: the name of the watcher.
        operations: as the handler got them.
        cost: what it held of the capacity.
        trigger: what cut it: ``size``, ``capacity``, ``interval`` or ``single``.
        started_at: seconds since the test began.
        outcomes: by the id of the operation: ``done``, ``retried``, ``dead``, ``halved`` (tried
            again in halves) or ``given_back`` (no attempt counted).
        error: what the handler raised.
    """

    id: str
    watcher: str
    operations: tuple[Operation, ...]
    cost: Cost
    trigger: str
    started_at: float
    outcomes: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None

    @property
    def payloads(self) -> list[object]:
        """The payloads of its operations."""
        return [one.payload for one in self.operations]


@dataclass(frozen=True, slots=True)
class Start:
    """What the start of a batch took of a resource: its costs by dimension, and the limits then."""

    at_ms: int
    resource: str
    costs: tuple[int, ...]
    limits: tuple[Limit, ...]


@dataclass(slots=True)
class Records:
    """All that happened in one test.

    ``dead`` has a reason for each id; ``left`` the operations of running batches that are not
    decided yet, None for those whose payload cannot be read.
    """

    clock: ManualClock
    operations: dict[tuple[str, str], Operation] = field(default_factory=dict)
    batches: list[CapturedBatch] = field(default_factory=list)
    done: set[tuple[str, str]] = field(default_factory=set)
    dead: dict[tuple[str, str], str] = field(default_factory=dict)
    starts: list[Start] = field(default_factory=list)
    _released: dict[str, Released] = field(default_factory=dict)
    _left: dict[str, list[Operation | None]] = field(default_factory=dict)
    _running: dict[str, tuple[CapturedBatch, int]] = field(default_factory=dict)

    def enqueued(self, batcher: Batcher, messages: Sequence[Outgoing]) -> None:
        """Messages are in lanes."""
        accept = wire.accepted(batcher.app.conf.accept_content)
        for message in messages:
            watcher = message.admission.watcher
            for entry in wire.decode_entries(message.entries):
                operation = _operation(batcher, watcher, entry, accept)
                self.operations[watcher, entry.id] = operation

    def released(self, batches: Sequence[Released]) -> None:
        """Batches are released; those offered again are no others."""
        for one in batches:
            self._released.setdefault(one.id, one)

    def watcher_of(self, id: str) -> str:
        """The watcher of a released batch."""
        return self._released[id].watcher

    def started(self, batcher: Batcher, id: str, blocks: bytes, limits: Sequence[Limit]) -> None:
        """A batch is claimed."""
        released = self._released[id]
        accept = wire.accepted(batcher.app.conf.accept_content)
        opened = wire.open_blocks(blocks, released.watcher, accept, batcher.dimensions)
        costs = (released.cost, *released.further)
        now = self.clock.now_ms()
        batch = CapturedBatch(
            id,
            released.watcher,
            opened.operations,
            named(costs, batcher.dimensions),
            released.trigger,
            self.clock.monotonic(),
        )
        self.batches.append(batch)
        self.starts.append(Start(now, batcher.resource_name, costs, tuple(limits)))
        operations = iter(opened.operations)
        self._left[id] = [None if one == "x" else next(operations) for one in opened.outcomes]
        self._running[id] = batch, batcher.watchers[released.watcher].max_attempts

    def decided(self, id: str, settlement: Settlement) -> None:
        """Outcomes are recorded; "-" for operations that are not decided yet."""
        batch, most = self._running[id]
        left, kinds = self._left[id], settlement.outcomes
        if len(kinds) == 1:
            kinds *= len(left)
        for operation, kind in zip(left, kinds, strict=True):
            if operation is not None and kind != "-":
                final = is_final(operation, Outcome(kind), most)
                batch.outcomes[operation.id] = "dead" if final else _BECAME[kind]
                if kind == "d":
                    self.done.add((batch.watcher, operation.id))
                    self.dead.pop((batch.watcher, operation.id), None)  # it was redriven
        self._left[id] = [one for one, kind in zip(left, kinds, strict=True) if kind == "-"]

    def died(self, watcher: str, died: Sequence[tuple[Died, str]]) -> None:
        """Operations are dead letters now."""
        self.dead |= {(watcher, one.id): reason for one, reason in died}

    def failed(self, id: str, error: BaseException) -> None:
        """The task of a batch has failed."""
        if id in self._running:
            self._running[id][0].error = error


def _operation(
    batcher: Batcher, watcher: str, entry: wire.Entry, accept: frozenset[str]
) -> Operation:
    return Operation(
        id=entry.id,
        watcher=watcher,
        cost=named(entry.costs, batcher.dimensions),
        payload=wire.decode_payload(entry.serializer, entry.payload, accept),
        attempt=entry.attempt,
        batchable=entry.batchable,
        key=entry.key,
        priority=wire.PRIORITIES[entry.priority],
    )
