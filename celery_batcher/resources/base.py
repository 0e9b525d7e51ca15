"""The protocol of a capacity limit."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Resource(Protocol):
    """A capacity that operations share (what go-batcher calls a rate limiter).

    Attributes:
        name: under which batchers share it in a store; None for the name of its batcher.
        window: seconds.
    """

    name: str | None
    window: float

    def capacity(self) -> int:
        """The capacity per window, as the code has it."""

    def max_capacity(self) -> int:
        """The most that an operation may cost."""
