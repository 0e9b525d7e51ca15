"""A batcher worked by hand on a real server: a test flushes, delivers and runs batches itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from celery import Celery
from redis import Redis

from celery_batcher import Batch, Batcher, ProvisionedResource, Watcher
from celery_batcher.turn import one_flush
from connected import close


class ByHand:
    """One batcher with one watcher; nothing happens but what a test calls.

    Args:
        url: address of the Redis that is broker and store.
        name: of the batcher, and of the Celery queue of its batches.
        prefix: of its keys.
        capacity: of its resource; None: unlimited.
        limiter: its resource, in place of one with that capacity.
        options: of the batcher.
    """

    def __init__(
        self,
        url: str,
        name: str,
        prefix: str,
        *,
        capacity: int | None = None,
        resource: str | None = None,
        limiter: Any = None,
        conf: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.app = Celery(name, broker=url, set_as_current=False)
        self.app.conf.update({"batcher_key_prefix": prefix, **(conf or {})})
        if capacity is not None:
            limiter = ProvisionedResource(capacity, name=resource)
        options = {"start_grace": 1.0, "flush_mode": "tick", **options}
        self.batcher = Batcher(name, app=self.app, rate_limiter=limiter, **options)
        self.client = Redis.from_url(url)
        self.prefix = prefix
        self.handled: list[Batch] = []
        self.handlers: dict[str, Callable[[Batch], Any]] = {}

    def watcher(self, name: str = "work", **options: Any) -> Watcher:
        """Add a watcher; it does what `handlers` says, and notes each batch it was given."""

        def handle(batch: Batch) -> None:
            self.handled.append(batch)
            self.handlers.get(name, lambda batch: None)(batch)

        queue = options.pop("queue", self.batcher.name)
        return self.batcher.watcher(name=name, queue=queue, **options)(handle)

    def flush(self) -> list[str]:
        """Flush once; return the ids of the batches that Celery was given."""
        one_flush(self.batcher._duties)
        return self.delivered()

    def delivered(self) -> list[str]:
        """Take all tasks out of the queue of the batches; return the ids of their batches."""
        found = []
        while message := self.client.rpop(self.batcher.name):
            found.append(json.loads(message)["headers"]["id"])
        return found

    def run(self, batch: str, watcher: str = "work") -> dict[str, Any]:
        """Do what a worker does that was given the task of a batch."""
        return self.batcher.run_batch(self.batcher.watchers[watcher], batch)

    def handled_ids(self) -> list[str]:
        """Ids of the operations handled, in order."""
        return [operation.id for batch in self.handled for operation in batch]

    def keys(self) -> dict[str, Any]:
        """Everything that the batcher keeps on the server, but for what only tells the time."""
        found: dict[str, Any] = {}
        names = [*self.client.scan_iter(f"{self.prefix}*"), *self.client.scan_iter(self.lanes)]
        for raw in names:
            key, kind = raw.decode(), self.client.type(raw)
            if kind == b"hash":
                found[key] = self.client.hgetall(raw)
            elif kind == b"list":
                found[key] = self.client.lrange(raw, 0, -1)
            elif kind == b"zset":
                found[key] = self.client.zrange(raw, 0, -1, withscores=True)
            elif kind == b"set":
                found[key] = self.client.smembers(raw)
        return found

    @property
    def lanes(self) -> str:
        """A pattern for the keys of its lanes."""
        return f"celery_batcher.{self.batcher.name}*"

    def close(self) -> None:
        """Delete what it keeps, and let its connections go."""
        self.batcher.stop()
        patterns = (f"{self.prefix}*", self.lanes, f"*{self.batcher.name}*")
        for pattern in patterns:
            for key in self.client.scan_iter(pattern, count=1000):
                self.client.delete(key)
        self.client.close()
        close(self.batcher.connections)
        self.app.close()
