"""The watchers that a process knows of one batcher."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery

from .errors import (
    ConfigurationError,
    NoOperationError,
    NoWatcherError,
    TooManyAttemptsError,
)
from .operation import Operation

if TYPE_CHECKING:
    from .backfill import Backfill
    from .watcher import Watcher


class Registry:
    """Watchers by name; no name has two handlers."""

    def __init__(self, batcher: str) -> None:
        self._batcher = batcher
        self._watchers: dict[str, Watcher] = {}
        self._backfills: dict[str, Backfill] = {}

    def check(self, name: str, handler: Callable[..., Any]) -> None:
        """Whether a handler may have this name; the same function may come again.

        Raises:
            ConfigurationError: another function has it.
        """
        known = self._watchers.get(name)
        if known is not None and _identity(known.handler) != _identity(handler):
            raise ConfigurationError(
                f"batcher {self._batcher} has a watcher {name} already: "
                f"{_identity(known.handler)}; give this one another name"
            )

    def add(self, watcher: Watcher) -> None:
        self._watchers[watcher.name] = watcher

    def all(self) -> dict[str, Watcher]:
        return dict(self._watchers)

    def add_backfill(self, backfill: Backfill) -> None:
        """
        Raises:
            ConfigurationError: another function has its name.
        """
        known = self._backfills.get(backfill.name)
        if known is not None and _identity(known.rows) != _identity(backfill.rows):
            raise ConfigurationError(
                f"batcher {self._batcher} has a back-fill {backfill.name} already: "
                f"{_identity(known.rows)}; give this one another name"
            )
        self._backfills[backfill.name] = backfill

    def backfills(self) -> dict[str, Backfill]:
        return dict(self._backfills)

    def watcher_of(self, operation: Operation) -> Watcher:
        """The watcher that takes an operation.

        Raises:
            NoOperationError: it is not an operation.
            NoWatcherError: its watcher is not registered here.
            TooManyAttemptsError: it has used its attempts.
        """
        if not isinstance(operation, Operation):
            raise NoOperationError(
                f"enqueue takes an operation, made by watcher.operation(payload), "
                f"not {type(operation).__name__}"
            )
        watcher = self._watchers.get(operation.watcher)
        if watcher is None:
            raise NoWatcherError(
                f"batcher {self._batcher} has no watcher {operation.watcher!r} in this process: "
                f"it has {', '.join(sorted(self._watchers)) or 'none'}"
            )
        if watcher.max_attempts and operation.attempt > watcher.max_attempts:
            raise TooManyAttemptsError(
                f"operation {operation.id} is at attempt {operation.attempt} "
                f"of {watcher.max_attempts}",
                attempt=operation.attempt,
                max_attempts=watcher.max_attempts,
            )
        return watcher


def name_of(handler: Callable[..., Any], app: Callable[[], Celery]) -> str:
    """The function's dotted name; in a script that is run, the app's stands for `__main__`."""
    name, module = getattr(handler, "__name__", repr(handler)), handler.__module__
    if module == "__main__":
        real: Any = app()
        return str(real.gen_task_name(name, module))
    return f"{module}.{name}"


def _identity(handler: Callable[..., Any]) -> str:
    return f"{handler.__module__}.{getattr(handler, '__qualname__', handler)}"
