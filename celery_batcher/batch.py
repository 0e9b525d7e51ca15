"""A batch: what a handler gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from .clock import Clock
from .operation import Operation


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Operation]):
    """Operations of one watcher, released together: a sequence of them.

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

    @property
    def cost(self) -> int:
        """The sum of the operations' costs."""
        return sum(operation.cost for operation in self.operations)

    @property
    def remaining(self) -> float:
        """Seconds until the operation time is over; negative when it is."""
        return self.deadline - self.clock.monotonic()

    def __len__(self) -> int:
        return len(self.operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    @overload
    def __getitem__(self, index: int) -> Operation: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...

    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        return self.operations[index]
