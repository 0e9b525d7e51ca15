"""The store of a schedule: in memory, or on Redis below a prefix of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from celery_batcher.clock import Clock
from celery_batcher.store.memory import MemoryServer, MemoryStore
from celery_batcher.store.options import Limits
from celery_batcher.store.redis import RedisStore

from .holds import Holds, holds_of_memory, holds_of_redis
from .pictures import Picture, picture_of_memory, picture_of_redis


@dataclass
class Stores:
    """Stores of the batchers of the resource ``r``, and what they keep.

    Args:
        client: of a Redis server; None: in memory.
    """

    seed: int
    clock: Clock
    client: Any = None
    _opened: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._server = MemoryServer(self.clock)
        self._prefix = f"sim{self.seed}:"

    @property
    def name(self) -> str:
        """What `make simulate` calls it."""
        return "memory" if self.client is None else "redis"

    def open(self, batcher: str) -> Any:
        """The store of a batcher."""
        if batcher not in self._opened:
            self._opened[batcher] = self._open(batcher)
        return self._opened[batcher]

    def _open(self, batcher: str) -> Any:
        if self.client is None:
            return MemoryStore(self._server, batcher=batcher, resource="r")
        return RedisStore(
            self.client,
            url="redis://",
            batcher=batcher,
            resource="r",
            prefix=self._prefix,
            clock=self.clock,
        )

    def picture_of(self, batcher: str) -> Picture:
        """All that is kept of a batcher's operations."""
        if self.client is None:
            return picture_of_memory(self._server, ("r", batcher))
        return picture_of_redis(self.open(batcher))

    def holds(self, limits: Limits) -> Holds:
        """What is held of the resource."""
        if self.client is None:
            return holds_of_memory(self._server, "r")
        dimensions = len(limits.resource.dimensions)
        return holds_of_redis(self.client, f"{self._prefix}{{r}}:", len(limits.all), dimensions)

    def tidy(self) -> None:
        """Remove everything."""
        if self.client is not None:
            for key in self.client.keys(f"{self._prefix}*"):
                self.client.delete(key)
