"""Publishing into lanes in memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..intakes.base import lane_name
from ..intakes.memory import MemoryLanes
from ..store.base import Arrival
from .base import Outgoing


class MemoryPublisher:
    """Publishes into lanes of this process."""

    def __init__(self, lanes: MemoryLanes, batcher: str) -> None:
        self._lanes, self._batcher = lanes, batcher

    def publish(self, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            one = message.admission
            lane = lane_name(self._batcher, one.watcher)
            self._lanes.put(lane, Arrival(one.id, one.watcher, message.entries), one.operations)
