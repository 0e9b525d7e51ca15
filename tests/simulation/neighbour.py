"""Another batcher of the resource: the store must let neither take what the other has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from builders import op
from celery_batcher import Batch
from celery_batcher.claim import Claimant
from celery_batcher.costs import costs_of
from celery_batcher.errors import BatcherError
from celery_batcher.events import Listeners
from celery_batcher.store.base import Arrival, Released
from celery_batcher.store.counts import Counts
from celery_batcher.store.options import WatcherOptions

from .actors import APP
from .world import SECOND, Actor

if TYPE_CHECKING:
    from .schedule import Schedule

LASTS_MS = 1000


class Neighbour:
    """A process with a batcher of its own, which stages, releases, claims and settles by itself.

    There is one at a time; what it leaves when it is killed the next one takes over.
    """

    def __init__(self, schedule: Schedule, store: Any) -> None:
        self._schedule = schedule
        self._store = store
        self._actors: list[Actor] = []
        self._token = f"neighbour {schedule.new_name()}"
        self.owner = f"simulated/{self._token}"
        limits = schedule.limits
        shares = replace(limits.resource, weight=schedule.plan.weight, floor=0.2)
        self._limits = replace(limits, resource=shares)
        self._spawn("turns", self._run)

    @property
    def alive(self) -> bool:
        """Whether any of its actors is."""
        return any(one.alive for one in self._actors)

    def kill(self) -> None:
        """SIGKILL."""
        for actor in self._actors:
            actor.kill()

    def counts(self) -> Counts:
        """The numbers of its batcher."""
        counts: Counts = self._store.counts()
        return counts

    def _spawn(self, what: str, act: Any) -> None:
        actor = Actor(self._schedule.world, f"neighbour {what}", act)
        self._actors = [*(one for one in self._actors if one.alive), actor]
        self._schedule.owners[actor] = self

    def _run(self) -> None:
        schedule, random = self._schedule, self._schedule.world.random
        configured = False
        while True:
            actor = schedule.world.current
            assert actor is not None
            actor.sleep(random.randint(SECOND // 50, SECOND // 5))
            with suppress(BatcherError):  # it tries again
                if not configured:
                    self._store.configure(self._limits, [WatcherOptions("n", max_batch_size=4)])
                    configured = True
                if self._store.take_turn(self._token, LASTS_MS).mine:
                    self._turn(random)

    def _turn(self, random: Random) -> None:
        if not self._schedule.calm:
            self._stage(random)
        self._store.expire(self._token, self._limits, "late", 100)
        self._store.probe(self._token, 1000, 100)
        for one in self._store.offer(self._token, 100):
            self._deliver(one)
        for _ in range(3):
            batch = self._store.release(self._token, self._schedule.new_batch_id(), self._limits)
            if not isinstance(batch, Released):
                return
            self._deliver(batch)

    def _stage(self, random: Random) -> None:
        plan, names = self._schedule.plan, []
        for _ in range(random.randint(0, 4)):
            names.append((self._schedule.new_name(), random.choice(plan.costs)))
        if names:
            costs = [costs_of(cost, self._limits.resource.dimensions) for _, cost in names]
            entries = b"".join(
                op(name, cost=cost[0], further=cost[1:])
                for (name, _), cost in zip(names, costs, strict=True)
            )
            id = f"message {names[0][0]}"
            self._store.stage(self._token, [Arrival(id, "n", entries)], "")

    def _deliver(self, batch: Released) -> None:
        late = self._schedule.world.random.choice((0, 0, SECOND // 20))
        self._schedule.world.after(late, lambda: self._spawn("works", lambda: self._work(batch.id)))

    def _work(self, batch: str) -> None:
        capacity, dimensions = self._schedule.oracle.capacity, self._limits.resource.dimensions

        def start(ones: Batch) -> None:
            capacity.started(ones.id, costs_of(ones.cost, dimensions))
            capacity.happened["batches of the neighbour started"] += 1

        claimant = Claimant(
            app=APP,
            store=self._store,
            clock=self._schedule.clock,
            limits=self._limits,
            operation_time=1.0,
            watcher="n",
            handler=start,
            listeners=Listeners(),
            emit_batch=False,
            dimensions=dimensions,
        )
        with suppress(BatcherError):  # its claim ends, and its operations come back
            claimant.run(batch)
