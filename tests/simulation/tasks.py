"""Celery's queue of batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from celery_batcher.errors import BrokerUnavailableError
from celery_batcher.store.base import Released

from .world import SECOND

if TYPE_CHECKING:
    from .schedule import Schedule


@dataclass
class TaskQueue:
    """A queue that loses, repeats and reorders; any worker may get a task."""

    schedule: Schedule
    random: Random
    lost: float = 0.0
    twice: float = 0.0
    partly: float = 0.0
    delay: int = 0
    happened: dict[str, int] = field(default_factory=dict)

    def tasks(self, batches: Sequence[Released]) -> list[str]:
        """Publish the tasks of batches."""
        for at, batch in enumerate(batches):
            if at and self._happens("broken off", self.partly):
                raise BrokerUnavailableError("the broker went away between two tasks")
            if self._happens("task lost", self.lost):
                continue
            for _ in range(2 if self._happens("task twice", self.twice) else 1):
                due = self.random.randint(0, self.delay)
                self.schedule.world.after(due, self._delivery(batch.watcher, batch.id))
        return [one.id for one in batches]

    def _happens(self, what: str, rate: float) -> bool:
        if rate and self.random.random() < rate:
            self.happened[what] = self.happened.get(what, 0) + 1
            return True
        return False

    def _delivery(self, watcher: str, id: str) -> Callable[[], None]:
        def deliver() -> None:
            workers = [
                one for one in self.schedule.processes if one.alive and len(one.handling) < 2
            ]
            if workers:
                self.random.choice(workers).work(watcher, id)
            else:
                self.schedule.world.after(SECOND // 50, deliver)

        return deliver

    def stop(self) -> None:
        """Let everything work from now on."""
        self.lost = self.twice = self.partly = 0.0
