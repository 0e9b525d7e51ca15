"""What handlers do: they take their time, decide, raise, and die."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from celery_batcher import Batch, Throttled
from celery_batcher.costs import costs_of
from celery_batcher.errors import StoreUnavailableError
from celery_batcher.store.base import Charge

from .world import SECOND, Killed

if TYPE_CHECKING:
    from .actors import Process


class BoomError(Exception):
    """What handlers raise."""


@dataclass
class Meter:
    """What a batch really costs, as its handler says it: more or less than was said before."""

    store: Any
    batch: str
    nonce: str
    costs: Sequence[int]
    charged: int = 0

    def charge(self, random: Random) -> None:
        """Say it some times, each time what is new; once more when the answer did not come."""
        left = list(self.costs)
        for _ in range(random.choice((1, 1, 3))):
            left = [random.choice((0, one // 2, one, one + 1, 2 * one)) for one in left]
            self.charged += 1
            charge = Charge(tuple(a - b for a, b in zip(left, self.costs, strict=True)))
            for _ in range(2):
                with suppress(StoreUnavailableError):
                    self.store.charge(self.batch, self.nonce, self.charged, charge)
                    break


@dataclass
class Handling:
    """One run of a handler: what it decides, how long it takes, how it ends."""

    process: Process
    batch: Batch

    def run(self) -> None:
        """Do what a handler may do, the worst included."""
        batch, schedule = self.batch, self.process.schedule
        tokens = [(json.dumps(one.payload).encode(), one.attempt) for one in batch]
        halves = self.process.watchers[batch.watcher].retry_policy.bisect
        costs = costs_of(batch.cost, self.process.batcher.dimensions)
        execution = schedule.oracle.started(batch.id, costs, tokens, halves)
        self._meter = Meter(schedule.store, batch.id, execution.claim.nonce, costs)
        schedule.world.note("handler", f"{batch.id} {[(t.decode(), n) for t, n in tokens]}")
        try:
            self._behave(schedule.world.random)
        except Throttled:
            execution.how = "back"
            raise
        except Killed:
            execution.how = "was killed"
            raise
        except BaseException:
            execution.how = "raised"
            raise
        execution.how = "returned"

    def _behave(self, random: Random) -> None:
        schedule = self.process.schedule
        if any(one.payload in schedule.plan.poisoned for one in self.batch):
            raise BoomError("poison")
        if schedule.calm:
            return
        self._nap(random.choice((0, 0, SECOND // 1000, SECOND // 10)))
        if random.random() < schedule.plan.charges:
            self._meter.charge(random)
        if random.random() < schedule.plan.decides:
            self._decide(random)
        way = random.random()
        if way < schedule.plan.troubles:
            self._end_badly(random)

    def _nap(self, us: int) -> None:
        actor = self.process.schedule.world.current
        assert actor is not None
        if us:
            actor.sleep(us)

    def _decide(self, random: Random) -> None:
        batch = self.batch
        for one in batch:
            way = random.randrange(8)
            if way < 3:
                batch.done(one)
            elif way == 3:
                batch.retry(one, after=random.choice((None, 0.05, 1.5)))
            elif way == 4:
                batch.fail(one, "the handler said so")
            if random.random() < 0.2:
                batch.commit()
                self._nap(random.choice((0, SECOND // 100)))

    def _end_badly(self, random: Random) -> None:
        way = random.randrange(5)
        if way == 0:
            raise Throttled(random.choice((None, 0.05, 1.0)))
        if way == 1:
            self._nap(
                round(self.process.schedule.plan.options["max_operation_time"] * 1.7 * SECOND)
            )
        elif way == 2:
            self._nap(round(self.process.schedule.plan.options["max_operation_time"] * SECOND))
        elif way == 3:
            self.process.kill()
            raise Killed
        else:
            raise BoomError("trouble")
