"""Who acts in a schedule: processes with a batcher, turns, workers, producers and operators."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from celery_batcher import Batch, Batcher, ProvisionedResource, Throttled
from celery_batcher.duties import Duties
from celery_batcher.errors import (
    BatcherError,
    BrokerUnavailableError,
    BufferFullError,
    ClaimExpiredError,
    EnqueueError,
    EnqueueUncertainError,
    TooExpensiveError,
)
from celery_batcher.flusher import Flusher, TurnLostError
from celery_batcher.store.base import Released
from celery_batcher.turn import TurnThread

from .world import SECOND, Actor, Killed

if TYPE_CHECKING:
    from .schedule import Schedule

APP = Celery("simulation", broker="memory://", set_as_current=False)
APP.finalize()


ACTS = (
    *("pause", "pause until resumed", "drain", "resume", "flush", "leave", "capacity"),
    *("redrive", "purge"),
)
UNCLAIMED = ("wait", "taken", "gone", "recalled")


class BoomError(Exception):
    """What handlers raise."""


@dataclass
class Linked:
    """What a batcher talks to, in place of `celery_batcher.connections.Connections`."""

    store: Any
    publisher: Any
    intake: Callable[[], Any]


class SimulatedBatcher(Batcher):
    """The batcher of a process: the real one, on the lines of the schedule."""

    def __init__(self, process: Process, **options: Any) -> None:
        plan = process.schedule.plan
        limiter = None
        capacity = process.schedule.capacity
        if capacity is not None:
            limiter = ProvisionedResource(capacity, name="r", window=plan.window)
        super().__init__(
            "b", app=APP, rate_limiter=limiter, clock=process.schedule.clock, **options
        )
        self._process = process
        self._connections = process.schedule.linked  # type: ignore[assignment]
        self._duties = SimulatedDuties(process, self, self._listeners, self._checker)
        self._turn = SimulatedTurn(process, self._duties)


class SimulatedDuties(Duties):
    """What a turn does in a process: batches have the schedule's ids and go to its tasks."""

    def __init__(self, process: Process, *args: Any) -> None:
        super().__init__(*args)
        self._process = process

    def flusher(self, token: str) -> Flusher:
        flusher = super().flusher(token)
        flusher._new_batch_id = self._process.schedule.new_batch_id
        return flusher

    def publish(self, batches: Sequence[Released]) -> list[str]:
        return list(self._process.schedule.tasks.tasks(batches))


class SimulatedTurn(TurnThread):
    """The thread of a process that holds the turn: an actor."""

    def __init__(self, process: Process, duties: Duties) -> None:
        super().__init__("b", duties)
        self._process = process
        self._actor: Actor | None = None

    @property
    def alive(self) -> bool:
        return self._actor is not None and self._actor.alive

    def ensure(self, *, unasked: bool = False, after: float = 0.0) -> None:
        if not self.alive:
            self._stopping, self._after = False, after
            self._actor = self._process.spawn("turn", self._run)

    def wake(self) -> None:
        super().wake()
        if self._actor is not None:
            self._actor.rouse()

    def stop(self, timeout: float = 5.0) -> None:
        self._stopping = True
        self.wake()

    def _hold_turn(self, duties: Duties) -> None:
        try:
            super()._hold_turn(duties)
        except (BatcherError, TurnLostError):
            raise
        except Exception as exc:
            self._process.schedule.crashed("a turn", exc)
            raise


class Process:
    """A process of the fleet: a batcher, and the actors that die with it."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.schedule = schedule
        self.name = name
        self.alive = True
        self.handling: list[str] = []
        self.received: deque[str] = deque(maxlen=5)
        self.actors: list[Actor] = []
        self.batcher = SimulatedBatcher(self, **schedule.plan.options)
        self.watchers = {
            watcher: self.batcher.watcher(name=watcher, **options)(self._handler)
            for watcher, options in schedule.plan.watchers.items()
        }

    def _handler(self, batch: Batch) -> None:
        Handling(self, batch).run()

    def spawn(self, what: str, act: Callable[[], Any]) -> Actor:
        """Let an actor of this process begin."""
        actor = Actor(self.schedule.world, f"{self.name} {what}", act)
        self.actors = [one for one in self.actors if one.alive]
        self.actors.append(actor)
        self.schedule.owners[actor] = self
        return actor

    @property
    def owner(self) -> str:
        """What the nonces of its claims begin with."""
        return f"simulated/{self.name}"

    def kill(self) -> None:
        """SIGKILL: none of its actors does another step."""
        if self.alive:
            self.alive = False
            self.schedule.kills += 1
            for actor in self.actors:
                actor.kill()
            self.schedule.died(self)

    def work(self, watcher: str, batch: str) -> None:
        """A task has come to this process."""
        self.handling.append(batch)
        self.received.append(batch)
        actor = self.spawn(f"task {batch}", lambda: self._work(watcher, batch))
        if self.schedule.plan.soft_limits:
            limit = self.watchers[watcher].operation_time
            actor.alarm = self.schedule.world.us + round(limit * SECOND)

    def _work(self, watcher: str, batch: str) -> None:
        oracle = self.schedule.oracle
        try:
            became = self.batcher.run_batch(self.watchers[watcher], batch)
            if became.get("batch") not in UNCLAIMED:
                oracle.succeeded(batch)
        except ClaimExpiredError:
            oracle.expired(batch)
        except (BatcherError, BoomError, SoftTimeLimitExceeded):
            pass  # the task fails; what became of its operations counts
        except Exception as exc:  # noqa: BLE001 - it is reported as what broke the schedule
            self.schedule.crashed("a worker", exc)
        finally:
            self.handling.remove(batch)

    def _quietly(self, act: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            try:
                act()
            except (BatcherError, TurnLostError):
                pass  # its caller is told; beat's next tick, or the deadline, makes up for it
            except Exception as exc:  # noqa: BLE001 - it is reported as what broke the schedule
                self.schedule.crashed("an act", exc)

        return run

    def operate(self, act: str) -> None:
        """Beat's task has come to this process, or somebody calls the batcher's API in it."""
        acts: dict[str, Callable[[], Any]] = {
            "tick": self.batcher.tick,
            "pause": lambda: self.batcher.pause(0.4),
            "pause until resumed": lambda: self.batcher.pause(None),
            "drain": lambda: self.batcher.drain(2),
            "resume": self.batcher.resume,
            "flush": self.batcher.flush,
            "leave": self.batcher.leave,
            "capacity": lambda: self.batcher.set_capacities([self.schedule.capacity or 0]),
            "redrive": lambda: [one.dead_letters.redrive() for one in self.watchers.values()],
            "purge": lambda: [one.dead_letters.purge() for one in self.watchers.values()],
        }
        self.spawn(act, self._quietly(acts[act]))

    def hand_back(self, batch: str, of: Process) -> None:
        """The parent of a killed child gives its batch back at once."""
        store = self.schedule.store
        self.spawn("hand back", self._quietly(lambda: store.abandon(batch, of.owner, "killed")))


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
        execution = schedule.oracle.started(batch.id, batch.cost, tokens, halves)
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


@dataclass
class TaskQueue:
    """Celery's queue of batches: it loses, repeats and reorders, and each worker may get a task."""

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
