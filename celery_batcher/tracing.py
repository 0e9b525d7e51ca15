"""Traces: what a producer's context is carried by, and what a batch is handled in.

A tracer is installed by `contrib.opentelemetry`; without one nothing is carried, and nothing is
asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .batch import Batch

MAX_CONTEXT = 1024
"""Bytes of a context that an entry carries; a longer one is left out."""

Handle = Callable[[], dict[str, Any]]


class Tracer(Protocol):
    """What knows of traces."""

    def context(self) -> bytes:
        """The context of this moment, for operations that are enqueued in it; b"" for none."""

    def process(self, batch: Batch, contexts: Sequence[bytes], handle: Handle) -> dict[str, Any]:
        """Handle a batch of operations that were enqueued in these contexts, each named once."""


_tracers: list[Tracer] = []


def install(tracer: Tracer | None) -> None:
    """From now on this tracer is asked in this process, and no other; None: none is."""
    _tracers[:] = [] if tracer is None else [tracer]


def context() -> bytes:
    """What is carried with operations that are enqueued now."""
    found = _tracers[0].context() if _tracers else b""
    return found if len(found) <= MAX_CONTEXT else b""


def process(batch: Batch, contexts: Sequence[bytes], handle: Handle) -> dict[str, Any]:
    """Handle a batch, in a trace if there is a tracer."""
    return _tracers[0].process(batch, contexts, handle) if _tracers else handle()
