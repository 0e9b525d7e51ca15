"""What operations are likely to cost: learned from what they were charged, asked by producers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import wire
from .costs import MAX_COST, Cost, named
from .errors import ConfigurationError, StoreUnavailableError
from .events import logger
from .packing import check_text

if TYPE_CHECKING:
    from .batcher import Batcher

FRESH = 1.0
"""Seconds for which a process asks the store no more."""
_SLIGHT = 0.001
"""A mean that is above an integer by no more than this is that integer: means of equal costs are
not exact."""


class Estimates:
    """What operations of one watcher are likely to cost, by cost key.

    The store keeps means of what was charged. A process reads them at most once a second, when it
    enqueues; while the store does not answer, what was read last counts.
    """

    def __init__(
        self, batcher: Batcher, watcher: str, cost_key: Callable[[Any], str] | None
    ) -> None:
        self._batcher = batcher
        self._watcher = watcher
        self._cost_key = cost_key
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._means: Mapping[str, Sequence[float]] = {}
        self._most: tuple[int, ...] | None = None

    def key_of(self, payload: Any) -> str:
        """The cost key of a payload; "" where all operations of the watcher are alike.

        Raises:
            ConfigurationError: the function raised, or what it returned is no key.
        """
        if self._cost_key is None:
            return ""
        try:
            key = self._cost_key(payload)
        except Exception as exc:
            raise ConfigurationError(
                f"cost_key of watcher {self._watcher} raised {type(exc).__name__}: {exc}"
            ) from exc
        return check_text(key, f"cost_key of watcher {self._watcher}:", wire.MAX_KEY).decode()

    def of(self, payload: Any) -> Cost | None:
        """What an operation of this payload is likely to cost; None before anything was learned.

        Raises:
            ConfigurationError: it has no cost key.
        """
        key = self.key_of(payload)
        with self._lock:
            self._refresh()
            means, most = self._means.get(key), self._most
        dimensions = self._batcher.dimensions
        if means is None or len(means) != len(dimensions):
            return None
        return named(rounded(means, most), dimensions)

    def _refresh(self) -> None:
        now = self._batcher.clock.monotonic()
        if self._read_at is not None and 0 <= now - self._read_at < FRESH:
            return
        self._read_at = now
        self._most = self._batcher.max_costs()
        try:
            self._means = self._batcher.store.estimates(self._watcher)
        except StoreUnavailableError as exc:
            logger.warning("%s: no new estimates of costs: %s", self._watcher, exc)


def rounded(means: Sequence[float], most: Sequence[int] | None) -> tuple[int, ...]:
    """Means as costs: rounded up, and no more than an operation may cost."""
    most = most or (MAX_COST,) * len(means)
    return tuple(
        min(max(0, math.ceil(mean - _SLIGHT)), limit)
        for mean, limit in zip(means, most, strict=True)
    )
