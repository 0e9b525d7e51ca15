"""What the operations of a batch really cost, as far as its handler has said so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .costs import Cost, named
from .errors import ConfigurationError

logger = logging.getLogger("celery_batcher")

Lesson = tuple[str, tuple[int, ...]]
"""A cost key, and what an operation of it cost."""


class Charges:
    """Actual costs by the position of the operation in its batch; the newest of each counts."""

    def __init__(self, said: Sequence[Cost], dimensions: tuple[str, ...]) -> None:
        self._dimensions = dimensions
        self._costs = [
            (one,) if isinstance(one, int) else tuple(one.get(name, 0) for name in dimensions)
            for one in said
        ]
        self._differences = [0] * len(dimensions)
        self.number = 0

    def add(self, actual: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
        """Note actual costs; return by dimension how much more than was said all charges are."""
        self.number += 1
        for position, costs in actual.items():
            for at, (new, known) in enumerate(zip(costs, self._costs[position], strict=True)):
                self._differences[at] += new - known
            self._costs[position] = tuple(costs)
        return tuple(self._differences)

    def total(self) -> Cost:
        """The cost of the batch: what was charged, and what was said where nothing was."""
        sums = tuple(map(sum, zip(*self._costs, strict=True)))
        return named(sums or (0,) * len(self._dimensions), self._dimensions)


def lessons(
    watcher: str,
    cost_key: Callable[[Any], str],
    payloads: Mapping[int, Any],
    actual: Mapping[int, tuple[int, ...]],
) -> tuple[Lesson, ...]:
    """What charges teach: nothing of an operation without a cost key, which is warned of."""
    learned: list[Lesson] = []
    fault = None
    for at, costs in actual.items():
        try:
            learned.append((cost_key(payloads[at]), costs))
        except ConfigurationError as exc:
            fault = exc
    if fault is not None:
        faulty = len(actual) - len(learned)
        logger.warning("%s: nothing is learned of %d operations: %s", watcher, faulty, fault)
    return tuple(learned)
