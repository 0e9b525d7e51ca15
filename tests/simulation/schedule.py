"""One schedule: a fleet with everything drawn from a seed, its faults, and a calm end."""

from __future__ import annotations

import logging
import random as global_random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from celery_batcher import claim
from celery_batcher.errors import BrokerUnavailableError, StoreUnavailableError
from celery_batcher.intakes.memory import MemoryIntake, MemoryLanes
from celery_batcher.operation import new_id
from celery_batcher.publishers.memory import MemoryPublisher

from .actors import ACTS, Linked, Process
from .capacity import Capacity
from .faults import Faults, Line
from .invariants import Oracle
from .neighbour import Neighbour
from .plan import Plan
from .producers import Producer
from .stores import Stores
from .tasks import TaskQueue
from .world import SECOND, Actor, World, WorldClock


class BrokenError(AssertionError):
    """An invariant was broken; the text says which, and shows the steps before it."""

    def __init__(self, broken: str, seed: int, store: str, steps: list[str]) -> None:
        self.broken = broken
        self.seed = seed
        replay = f"make simulate SEED={seed} STORE={store}"
        super().__init__("\n".join([*steps, f"broken: {broken}", f"replay: {replay}"]))


@dataclass(frozen=True)
class Result:
    """What a schedule was."""

    seed: int
    steps: int
    operations: int
    done: int
    dead: int
    repeated: int
    kills: int
    faults: Counter[str]
    happened: Counter[str]
    seconds: float


@dataclass
class Schedule:
    """A fleet on one store, from its first operation to its last.

    Args:
        seed: decides everything.
        redis: the store's client; None for the memory store.
    """

    seed: int
    client: Any = None
    processes: list[Process] = field(default_factory=list)
    producers: list[Process] = field(default_factory=list)
    neighbour: Neighbour | None = None
    owners: dict[Actor, Process | Neighbour] = field(default_factory=dict)
    to_send: list[int] = field(default_factory=list)
    kills: int = 0
    calm: bool = False

    def __post_init__(self) -> None:
        self.world = World(self.seed)
        self.clock = WorldClock(self.world)
        self.random = Random(f"plan {self.seed}")
        self.plan = Plan.drawn(self.random)
        self.faults = Faults.drawn(self.random)
        self.limits = self.plan.limits()
        self.figures = [one.capacity for one in self.limits.all]
        self.lanes = MemoryLanes()
        self._names, self._batches, self._fleet = count(), count(1), count(1)
        stores = self._stores = Stores(self.seed, self.clock, self.client)
        self.oracle = Oracle(
            self.world,
            Capacity(self.world, self.limits, lambda: stores.holds(self.limits)),
            lambda: stores.picture_of("b"),
            self.lanes,
            every=1 if self.client is None else 5,
        )
        self.store = self._line(stores.open("b"), StoreUnavailableError)
        publisher = self._line(MemoryPublisher(self.lanes, "b"), BrokerUnavailableError)
        self.linked = Linked(self.store, publisher, self._intake)
        self._theirs = self._line(stores.open("c"), StoreUnavailableError, self.oracle.capacity.saw)
        queue = TaskQueue(self, self.world.random, *self._mishaps())
        self.queue, self.tasks = queue, self._line(queue, BrokerUnavailableError)

    def _mishaps(self) -> tuple[float, float, float, int]:
        draw = self.random.choice
        return (
            draw((0.0, 0.1, 0.4)),
            draw((0.0, 0.1, 0.5)),
            draw((0.0, 0.1)),
            draw((0, SECOND // 20, 2 * SECOND)),
        )

    def _line(self, real: Any, error: type[Exception], seen: Any = None) -> Any:
        return Line(self.world, self.faults, real, error, self._kill, seen or self.oracle.saw)

    def _intake(self) -> Any:
        return self._line(MemoryIntake(self.lanes, "b"), BrokerUnavailableError)

    def _kill(self, actor: Actor) -> None:
        self.owners[actor].kill()

    def new_batch_id(self) -> str:
        """The id of the next batch."""
        return f"batch{next(self._batches)}"

    def new_name(self) -> str:
        """The payload of the next operation, and its id if its producer gives it one."""
        return f"op{next(self._names)}"

    def crashed(self, who: str, error: BaseException) -> None:
        """The engine's code raised what it promises not to raise."""
        self.world.fail(f"crash: {who} raised {type(error).__name__}: {error}")

    def run(self) -> Result:
        """Run it.

        Raises:
            BrokenError: an invariant was.
        """
        with _the_same_every_time(self.seed, lambda _: self.owners[self.world.current].owner):
            try:
                self._troubled()
                self._calm_down()
                self._check_end()
            finally:
                kills = self.kills
                for process in (*self.processes, *self.producers):
                    process.kill()
                if self.neighbour is not None:
                    self.neighbour.kill()
                self.kills = kills
                self.world.run_until(self.world.us)
                self._stores.tidy()
        return self._result()

    def _troubled(self) -> None:
        plan, world = self.plan, self.world
        for _ in range(plan.processes):
            self._hire()
        self._move_in()
        share = -(-plan.operations // plan.producers)
        self.to_send = [share] * plan.producers
        for number in range(plan.producers):
            self._produce(number)
        self._beat()
        self._operate()
        end = world.us + plan.troubled_us
        self._run(end)

    def _produce(self, at: int) -> None:
        """A producer starts, in place of one that died with work left to do."""
        process = Process(self, f"producer{at + 1}")
        self.producers[at : at + 1] = [process]
        process.spawn("enqueues", Producer(process, at).run)

    def _run(self, until: int) -> None:
        self.world.run_until(until)
        if self.world.failure:
            raise BrokenError(self.world.failure, self.seed, self._stores.name, self.world.told())

    def died(self, process: Process) -> None:
        """A process was killed: its batches come back when their claims end, or before.

        Its parent does not know what it had claimed of what it was given.
        """
        for batch in process.received:
            if self.world.random.random() < self.plan.hands_back:
                late = self.world.random.randint(0, SECOND // 10)
                self.world.after(late, lambda id=batch: self._any_process().hand_back(id, process))

    def _hire(self) -> None:
        """A process starts in place of each that died."""
        for at, process in enumerate(self.producers):
            if not process.alive and not self.calm and self.to_send[at] > 0:
                self._produce(at)
        while sum(one.alive for one in self.processes) < self.plan.processes:
            self.processes = [one for one in self.processes if one.alive]
            self.processes.append(Process(self, f"process{next(self._fleet)}"))

    def _move_in(self) -> None:
        """A neighbour starts in place of one that was killed."""
        if self.plan.neighbour and (self.neighbour is None or not self.neighbour.alive):
            self.neighbour = Neighbour(self, self._theirs)

    def _beat(self) -> None:
        """Beat ticks: on time, late, twice, or not at all."""
        random, beat = self.world.random, self.plan.options["beat_interval"] * SECOND
        self._hire()
        if not self.calm:
            self._move_in()
        times = 1 if self.calm else random.choice((0, 1, 1, 1, 1, 2))
        for _ in range(times):
            late = 0 if self.calm or random.random() < 0.7 else random.randint(0, 2 * beat)
            self.world.after(late, self._tick)
        self.world.after(beat, self._beat)

    def _tick(self, act: str = "tick") -> None:
        self._any_process().operate(act)

    def _operate(self) -> None:
        """Operators act, beat's tasks come when they were not due, and processes die."""
        random = self.world.random
        if self.calm:
            return
        leases = self.limits.resource.factor is not None
        act = random.choice((*ACTS, *["lease"] * 6 * leases, *["tick"] * 6, "kill", "evict"))
        process = self._any_process()
        if act == "kill":
            process.kill()
        elif act == "evict":
            if self.neighbour is not None:
                self.neighbour.kill()
        elif act == "capacity":
            self._change_capacity()
        else:
            process.operate(act)
        if act.startswith(("pause", "drain")):
            most = SECOND if act == "drain" else SECOND // 2
            self.world.after(random.randint(0, most), lambda: self._tick("resume"))
        self.world.after(random.randint(0, SECOND // 2), self._operate)

    def _change_capacity(self) -> None:
        """An operator sets the capacities, and what is 0 not for long."""
        provision = self.plan.provision
        if provision is not None and not self.calm:
            self.figures = provision.figures(self.world.random)
            self._tick("capacity")
            if 0 in self.figures:
                self.world.after(self.world.random.randint(0, SECOND), self._change_capacity)

    def _calm_down(self) -> None:
        """No more faults: everything must end."""
        self.faults.stop()
        self.queue.stop()
        self._wait_for_producers()
        self.calm = True
        self._finish()
        self._let_windows_pass()

    def _wait_for_producers(self) -> None:
        for _ in range(100):
            if not any(one.alive for process in self.producers for one in process.actors):
                return
            self.store.pause(0)
            self._run(self.world.us + SECOND)
        self.world.fail("every operation ends: a producer waits for ever")

    def _finish(self) -> None:
        """Let time pass until all is done; where nothing happens, let it jump."""
        step = round(3 * self.plan.options["flush_interval"] * SECOND)
        before, pause = self._state(), step
        jumps = self._jumps(*before)
        while any(before[1:]):
            self._let_work()
            self._run(self.world.us + pause)
            now = self._state()
            pause = step
            if now != before:
                jumps = self._jumps(*now)
            elif (jump := next(jumps, None)) is not None:
                leap, pause = jump
                self.world.note(f"time jumps by {leap} s")
                self.world.us += round(leap * SECOND)
            else:
                self.world.fail(f"every operation ends: {now} did not")
            before = now

    def _let_windows_pass(self) -> None:
        """Holds end, and debts are paid: they hold once more."""
        longest = max((one.window_ms for one in self.limits.all), default=0) * 1000
        patience = round((2.2 * self.plan.options["beat_interval"]) * SECOND)
        for _ in range(5):
            self._let_work()
            self.world.us += longest
            self._run(self.world.us + patience)
            if not any(self.oracle.capacity.leftovers().values()):
                return

    def _let_work(self) -> None:
        """Undo what operators did, also what takes effect only now."""
        self.store.pause(0)
        self._move_in()  # what the one before was about may have outlived it for a while
        provision = self.plan.provision
        if provision is None:
            return
        figures = [100 * one.capacity for one in provision.resource().limits()]
        if [one.limit.capacity for one in self.store.counts().limits] != figures:
            self.store.set_capacity(figures)
        right = self.store.limiter("calm", 1000, "the fleet")
        if provision.factor is not None and right.term:
            self.store.lease(right.term, provision.all_leases(right.now_ms))

    def _any_process(self) -> Process:
        self._hire()
        return self.world.random.choice([one for one in self.processes if one.alive])

    def _jumps(self, _done: int, left: int, _admitted: int) -> Iterator[tuple[float, int]]:
        """Seconds by which time may jump, and microseconds that must pass after that.

        Where only admissions are left, they are void after a minute. What is longer than the
        fleet's patience is an outage, behind which claims have their grace once more: expiry waits
        until that is over.
        """
        beat, grace = self.plan.options["beat_interval"], self.plan.options["claim_grace"]
        short = round(2 * self.plan.options["flush_interval"] * SECOND)
        for _ in range(5 if left else 0):
            yield 1.2 * beat, short
        yield 61.0, short
        for _ in range(12):
            yield 61.0, round((2 * beat + grace) * SECOND)

    def _state(self) -> tuple[int, int, int]:
        """What has ended, and what has not."""
        picture = self.oracle.check()
        busy = sum(one.alive and not one.name.endswith(("turn", "turns")) for one in self.owners)
        left = self.oracle.unfinished(picture) + self.faults.outstanding + busy
        if self.neighbour is not None:
            left += self.neighbour.counts().unfinished
        return self.oracle.done, left, len(picture.admitted)

    def _check_end(self) -> None:
        picture = self.oracle.check()
        self.oracle.check_end(self.store.counts(), picture)
        self._run(self.world.us)

    def _result(self) -> Result:
        oracle = self.oracle
        accounts = oracle.accounts.values()
        happened = self.faults.happened + Counter(self.queue.happened)
        return Result(
            seed=self.seed,
            steps=self.world.steps,
            operations=len(accounts),
            done=oracle.done,
            dead=sum(one.dead for one in accounts),
            repeated=sum(1 for times in oracle.handled.values() if times > 1),
            kills=self.kills,
            faults=happened,
            happened=oracle.happened,
            seconds=self.world.now,
        )


@contextmanager
def _the_same_every_time(seed: int, owner: Callable[[int], str]) -> Iterator[None]:
    """Ids and random numbers of the engine follow from the seed; its log is not read here.

    Args:
        owner: tells what the nonces of a process begin with. Here all have one process id.
    """
    real_owner = claim.owner
    state, prefix, numbers = global_random.getstate(), new_id._prefix, new_id._count
    global_random.seed(seed)
    new_id._prefix, new_id._count = f"{seed:016x}", count()
    claim.owner = owner
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        claim.owner = real_owner
        logging.disable(disabled)
        global_random.setstate(state)
        new_id._prefix, new_id._count = prefix, numbers
