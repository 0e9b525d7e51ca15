"""The processes of a schedule: each has a batcher, and turns, workers and operators act in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from celery_batcher import Batch, Batcher
from celery_batcher.duties import Duties
from celery_batcher.errors import BatcherError, ClaimExpiredError
from celery_batcher.flusher import Flusher, TurnLostError
from celery_batcher.store.base import Released
from celery_batcher.turn import TurnThread

from .handlers import BoomError, Handling
from .world import SECOND, Actor

if TYPE_CHECKING:
    from .schedule import Schedule

APP = Celery("simulation", broker="memory://", set_as_current=False)
APP.finalize()


ACTS = (
    *("pause", "pause until resumed", "drain", "resume", "flush", "leave", "capacity"),
    *("redrive", "purge"),
)
UNCLAIMED = ("wait", "taken", "gone", "recalled")


@dataclass
class Linked:
    """What a batcher talks to, in place of `celery_batcher.connections.Connections`."""

    store: Any
    publisher: Any
    intake: Callable[[], Any]
    app: Celery = APP
    eager: bool = False

    def fits(self, app: Celery) -> bool:
        """Whether they are those of this app."""
        return app is self.app


class SimulatedBatcher(Batcher):
    """The batcher of a process: the real one, on the lines of the schedule."""

    def __init__(self, process: Process, **options: Any) -> None:
        plan = process.schedule.plan
        limiter = None if plan.provision is None else plan.provision.resource()
        super().__init__(
            "b", app=APP, rate_limiter=limiter, clock=process.schedule.clock, **options
        )
        self._process = process
        self._connections = process.schedule.linked  # type: ignore[assignment]
        self._duties = SimulatedDuties(
            process, self, self._listeners, self._announcer, self._checker
        )
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
        claims = self.schedule.oracle.claims
        try:
            became = self.batcher.run_batch(self.watchers[watcher], batch)
            if became.get("batch") not in UNCLAIMED:
                claims.succeeded(batch)
        except ClaimExpiredError:
            claims.expired(batch)
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
            "capacity": lambda: self.batcher.set_capacities(self.schedule.figures),
            "lease": self._lease,
            "redrive": lambda: [one.dead_letters.redrive() for one in self.watchers.values()],
            "purge": lambda: [one.dead_letters.purge() for one in self.watchers.values()],
        }
        self.spawn(act, self._quietly(acts[act]))

    def _lease(self) -> None:
        """Lease some partitions, if this process may."""
        schedule, provision = self.schedule, self.schedule.plan.provision
        assert provision is not None
        right = schedule.store.limiter(self.name, 300, "the fleet")
        if right.term:
            leases = provision.leases(schedule.world.random, right.now_ms)
            schedule.store.lease(right.term, leases)

    def hand_back(self, batch: str, of: Process) -> None:
        """The parent of a killed child gives its batch back at once."""
        store = self.schedule.store
        self.spawn("hand back", self._quietly(lambda: store.abandon(batch, of.owner, "killed")))
