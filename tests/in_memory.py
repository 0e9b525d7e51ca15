"""An app in one process, without a server: broker, store and lanes in memory, time by hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery import Celery

from celery_batcher import Batcher
from celery_batcher.clock import ManualClock
from celery_batcher.intakes.base import lane_name
from celery_batcher.intakes.memory import MemoryLanes
from celery_batcher.store import memory


class InMemory:
    """An app on a broker and store of its own; its workers are `work`."""

    def __init__(self, **conf: Any) -> None:
        self.clock = ManualClock()
        self.name = f"app{uuid4().hex}"
        self.url = f"memory://{self.name}"
        memory._servers[self.url] = memory.MemoryServer(self.clock)
        self.app = Celery(self.name, broker=self.url, set_as_current=False)
        self.app.conf.update(task_default_queue=self.name, **conf)
        self.results: list[Any] = []

    def batcher(self, name: str = "b", **options: Any) -> Batcher:
        """A batcher on the clock of this app."""
        return Batcher(name, app=self.app, clock=self.clock, **options)

    def lanes(self, batcher: Batcher) -> MemoryLanes:
        """The lanes of the process behind a batcher."""
        return batcher.connections.intake()._lanes  # type: ignore[attr-defined, no-any-return]

    def in_lane(self, batcher: Batcher, watcher: str) -> int:
        """Messages in a lane."""
        return len(self.lanes(batcher).queues[lane_name(batcher.name, watcher)])

    def tasks(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Take the published tasks out of the queue: name, id, headers."""
        found = []
        with self.app.connection_for_read() as connection:
            channel = connection.default_channel
            channel.queue_declare(self.name)
            while message := channel.basic_get(self.name, no_ack=True):
                headers = message.headers
                found.append((headers["task"], headers["id"], headers))
        return found

    def work(self) -> int:
        """Run all published tasks as a worker would; return their number."""
        published = self.tasks()
        for name, id, _ in published:
            with suppress(Exception):  # the task failed; what became of its operations counts
                self.results.append(self.app.tasks[name].apply((id,), throw=True).result)
        return len(published)

    def tick(self, batcher: Batcher, times: int = 1, every: float = 0.1) -> None:
        """Flush in tick mode, work, and let time pass."""
        for _ in range(times):
            batcher.tick()
            self.work()
            self.clock.advance(every)

    def close(self) -> None:
        """Forget all of it."""
        memory._servers.pop(self.url, None)
        self.app.close()


def collecting(into: list[Any]) -> Callable[[Any], None]:
    """A handler that notes the ids it was given, a list per batch."""

    def handle(batch: Any) -> None:
        into.append([operation.id for operation in batch])

    return handle
