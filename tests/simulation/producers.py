"""Who enqueues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from celery_batcher.errors import (
    BrokerUnavailableError,
    BufferFullError,
    EnqueueError,
    EnqueueUncertainError,
    TooExpensiveError,
)

if TYPE_CHECKING:
    from .actors import Process


@dataclass
class Producer:
    """Enqueues operations, one by one or many, and again when it was left in doubt."""

    process: Process
    number: int

    def run(self) -> None:
        """Enqueue what is left to be enqueued."""
        world, left = self.process.schedule.world, self.process.schedule.to_send
        random, actor = world.random, world.current
        assert actor is not None
        while left[self.number] > 0:
            actor.sleep(random.randint(0, self.process.schedule.plan.pace))
            if random.random() < 0.5:
                self._one(random)
            else:
                self._many(random)

    def _one(self, random: Random) -> None:
        schedule = self.process.schedule
        watcher, token, name = self._next(random)
        own = random.random() < 0.5
        options: dict[str, Any] = {"id": name} if own else {}
        options |= self._attributes(random)
        schedule.to_send[self.number] -= 1
        for _ in range(3):
            schedule.oracle.offered(token)
            try:
                watcher.enqueue(name, **options, batchable=random.random() < 0.9)
            except EnqueueUncertainError as exc:
                schedule.oracle.promised([token], "uncertain")
                options["id"] = exc.id
                if random.random() < 0.5:
                    continue  # again, with its id
            except (EnqueueError, TooExpensiveError) as exc:
                schedule.oracle.promised([token], "refused")
                self._check_trace(exc)
            else:
                schedule.oracle.promised([token], "accepted")
            return

    def _many(self, random: Random) -> None:
        oracle = self.process.schedule.oracle
        watcher = random.choice(list(self.process.watchers.values()))
        left = self.process.schedule.to_send
        n = min(left[self.number], random.randint(1, 8))
        left[self.number] -= n
        names = [self.process.schedule.new_name() for _ in range(n)]
        tokens = [json.dumps(name).encode() for name in names]
        for token in tokens:
            oracle.offered(token)
        own: dict[str, Any] = {"id": str} if random.random() < 0.5 else {}
        pack = random.choice((1, 2, 500))
        try:
            watcher.enqueue_many(names, **self._attributes(random), **own, pack=pack)
        except (EnqueueError, TooExpensiveError) as exc:
            sent: int = exc.enqueued  # type: ignore[union-attr]
            doubt = exc.uncertain if isinstance(exc, EnqueueUncertainError) else 0
            oracle.promised(tokens[:sent], "accepted")
            oracle.promised(tokens[sent : sent + doubt], "uncertain")
            oracle.promised(tokens[sent + doubt :], "refused")
            self._check_trace(exc)
        else:
            oracle.promised(tokens, "accepted")

    def _check_trace(self, error: Exception) -> None:
        # With the store away an admission may be left, until the audit voids it.
        if isinstance(error, BrokerUnavailableError | BufferFullError | TooExpensiveError):
            self.process.schedule.oracle.left_no_trace()

    def _next(self, random: Random) -> tuple[Any, bytes, str]:
        name = self.process.schedule.new_name()
        watcher = random.choice(list(self.process.watchers.values()))
        return watcher, json.dumps(name).encode(), name

    def _attributes(self, random: Random) -> dict[str, Any]:
        return {
            "cost": random.choice(self.process.schedule.plan.costs),
            "key": random.choice((None, None, "k", "l")),
            "priority": random.choice(("high", "normal", "normal", "backfill")),
        }
