"""What of the capacity is taken, measured where handlers start, and what the store holds for it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery_batcher.store.options import Limit, Limits

from .holds import Holds
from .world import World

PARKED_MS = 251
"""What was too dear is looked at again after 250 ms."""


@dataclass(slots=True)
class Grant:
    """A claim or a renewal: which one it is, and what might be used then, by limit."""

    number: int
    usable: list[int]


@dataclass(slots=True)
class Taken:
    """What a handler that started took of each limit, or a debt that was paid of one.

    ``usable`` is None where nothing was asked of a limit.
    """

    at: int
    costs: list[int]
    number: int
    usable: Sequence[int | None]


@dataclass(slots=True)
class Figure:
    """A limit as it stands, and how it rises: from ``start`` on, by ``step``."""

    limit: Limit
    start: int = 0
    step: int = 0

    def risen(self, steps: int) -> int:
        """What there is of it after so many steps."""
        if not self.step:
            return self.limit.capacity
        return min(self.limit.capacity, self.start + self.step * max(0, steps))


@dataclass
class Capacity:
    """Books of a resource: its figures, leases and debts, and what was taken in its windows.

    Args:
        limits: what the code of the fleet says.
        read: what the store holds now.
    """

    world: World
    limits: Limits
    read: Callable[[], Holds]
    figures: list[Figure] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    taken: deque[Taken] = field(default_factory=deque)
    debts: list[int] = field(default_factory=list)
    closed_until: int = 0
    happened: Counter[str] = field(default_factory=Counter)
    _from_ms: int = 0
    _leases: dict[int, int] = field(default_factory=dict)
    _worth_less: tuple[int, int] = (-1, 0)
    _reserved: int = 0
    _limiter: tuple[str, int, int] = ("", 0, 0)
    _numbers: int = 0
    _renewals: set[str] = field(default_factory=set)
    _starts: dict[str, Taken] = field(default_factory=dict)
    _charges: dict[tuple[str, str], int] = field(default_factory=dict)
    _differences: dict[tuple[str, int], int] = field(default_factory=dict)
    _owed: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def now(self) -> int:
        """The store's time."""
        return self.world.us // 1000

    def saw(self, name: str, args: tuple[Any, ...], answer: Any) -> None:
        """A call took effect."""
        watch = getattr(self, f"saw_{name}", None)
        if watch is not None:
            watch(args, answer)

    # What may be used

    def usable(self, ago_ms: int = 0) -> list[int]:
        """What might be used of each limit then."""
        at, options = self.now - ago_ms, self.limits.resource
        found = []
        for figure in self.figures:
            capacity = figure.risen((at - self._from_ms) // options.every_ms)
            if options.factor is not None:
                until = at + figure.limit.window_ms + self.limits.grace_ms
                capacity = min(capacity, self._reserved + self._leased(options.factor, until))
            found.append(capacity)
        return found

    def affords(self, costs: Sequence[int]) -> bool:
        """Whether an operation is not too dear now, and was not when it was last looked at."""
        for usable in (self.usable(), self.usable(PARKED_MS)):
            for figure, most in zip(self.figures, usable, strict=True):
                dimension = figure.limit.dimension
                if dimension <= len(costs) and costs[dimension - 1] > most:
                    return False
        return True

    def _leased(self, factor: int, until: int) -> int:
        last, less = self._worth_less
        lasting = [at for at, ends in self._leases.items() if ends >= until]
        return sum(factor - (less if at == last else 0) for at in lasting)

    def saw_configure(self, _: tuple[Any, ...], answer: Any) -> None:
        """The first one writes the figures of the code; from then on the store's count."""
        if answer is None:
            return
        if not self.figures:
            self.figures = [Figure(one) for one in self.limits.all]
            self.debts = [0] * len(self.figures)
            self._reserved = self.limits.resource.reserved or 0
        if [one.limit for one in self.figures] != list(answer.limits):
            self.world.fail(f"figures: {self.figures} stood, the store says {answer.limits}")

    def saw_set_capacity(self, args: tuple[Any, ...], answer: Any) -> None:
        if answer is None:
            return
        options = self.limits.resource
        self.happened["capacities set"] += 1
        for n, (now, capacity) in enumerate(zip(self.usable(), args[0], strict=True)):
            figure = self.figures[n]
            rising = figure.step if now < figure.limit.capacity else 0
            if options.ramp and capacity > now:
                rising = options.ramp[n]
            figure.step = 0 if options.factor is not None else rising
            figure.start = min(now, capacity)
            figure.limit = figure.limit.with_capacity(capacity)
        self._from_ms = max(self.now, self.closed_until)

    def saw_shut(self, args: tuple[Any, ...], _: Any) -> None:
        self._close(self.now + args[0])

    def saw_throttle(self, _: tuple[Any, ...], answer: Any) -> None:
        self._close(self.now + answer)

    def _close(self, until: int) -> None:
        if until <= self.closed_until:
            return
        options = self.limits.resource
        if self.closed_until > self.now:
            self._from_ms = until
        elif options.adaptive:
            for n, (figure, now) in enumerate(zip(self.figures, self.usable(), strict=True)):
                twentieth = -(-figure.limit.capacity // 20)
                figure.step = options.ramp[n] if options.ramp else max(1, twentieth)
                figure.start = max(min(1, now), now // 2)
            self._from_ms = until
        self.closed_until = until

    def saw_limiter(self, args: tuple[Any, ...], answer: Any) -> None:
        token, until, _ = self._limiter
        if answer.term:
            if args[0] != token and self.now < until:
                self.world.fail(f"one limiter: {args[0]} leases, and {token} may still")
            self._limiter = args[0], self.now + args[1], answer.term

    def saw_lease(self, args: tuple[Any, ...], answer: Any) -> None:
        term, leases = args
        if not answer:
            return
        if term != self._limiter[2]:
            self.world.fail(f"one limiter: leases of the term {term} are taken, it is over")
        self.happened["leases put in force"] += 1
        self._leases = dict(leases.partitions)
        self._worth_less = leases.last, leases.lacking

    # What is taken

    def saw_claim(self, args: tuple[Any, ...], answer: Any) -> None:
        if answer.state == "claimed" and args[0] not in self.grants:
            self._grant(args[0])

    def saw_renew(self, args: tuple[Any, ...], answer: Any) -> None:
        if answer and args[3] not in self._renewals:
            self._renewals.add(args[3])
            self.happened["holds renewed"] += 1
            self._grant(args[0])

    def _grant(self, batch: str) -> None:
        self._numbers += 1
        self.grants[batch] = Grant(self._numbers, self.usable())

    def started(self, batch: str, costs: Sequence[int]) -> None:
        """A handler starts now with a batch of these costs, by dimension."""
        if self.figures:
            grant = self.grants[batch]
            of_limits = [costs[one.limit.dimension - 1] for one in self.figures]
            self._starts[batch] = taken = Taken(
                self.world.us, of_limits, grant.number, grant.usable
            )
            self._take(taken)
            self.happened["batches started"] += 1

    def _take(self, taken: Taken) -> None:
        """G3. A window is measured against what might be used at its last grant."""
        self.taken.append(taken)
        longest = max(one.limit.window_ms for one in self.figures) * 1000
        while self.taken[0].at <= self.world.us - longest:
            self.taken.popleft()
        for n, usable in enumerate(taken.usable):
            if usable is None:
                continue
            inside = self._inside(n)
            total = sum(one.costs[n] for one in inside)
            last = max((one for one in inside if one.usable[n] is not None), key=_number)
            if total > (last.usable[n] or 0):
                self.world.fail(
                    f"window: {total} started in one of limit {n + 1}, the capacity is "
                    f"{last.usable[n]}"
                )
        self._check_holds(self.read())

    def _inside(self, n: int) -> list[Taken]:
        """What was taken in the window of a limit that ends now."""
        begin = self.world.us - self.figures[n].limit.window_ms * 1000
        return [one for one in self.taken if one.at > begin]

    def saw_charge(self, args: tuple[Any, ...], answer: Any) -> None:
        """What costs more is owed, what costs less is not owed any more, and else free at once."""
        id, nonce, number, charge = args
        if answer and self._charges.get((id, nonce), 0) < number:
            self._charges[id, nonce] = number
            self.happened["charges"] += 1
            for n, figure in enumerate(self.figures):
                self._charge(id, n, charge.differences[figure.limit.dimension - 1])
        if self.figures:
            self._check_debts(self.read())

    def _charge(self, id: str, n: int, difference: int) -> None:
        """``difference`` is to what was said, and of all charges of the claim."""
        more = difference - self._differences.get((id, n), 0)
        self._differences[id, n] = difference
        owed = self._owed.get((id, n), 0)
        forgiven = min(owed, -more) if more < 0 else 0
        self._owed[id, n] = owed + max(0, more) - forgiven
        self.debts[n] = max(0, self.debts[n] + max(0, more) - forgiven)
        if id in self._starts:
            self._starts[id].costs[n] += min(0, more) + forgiven

    def saw_release(self, _: tuple[Any, ...], __: Any) -> None:
        """What is owed becomes a hold without a batch."""
        if not any(self.debts):
            return
        usable = self.usable()
        for n, left in enumerate(self.read().debts):
            paid, self.debts[n] = self.debts[n] - left, left
            if paid < 0:
                self.world.fail(f"debts: {-paid} more is owed of limit {n + 1}, for nothing")
            if paid > 0:
                self._numbers += 1
                self.happened["debts paid"] += 1
                costs, asked = [0] * len(usable), [None] * len(usable)
                costs[n], asked[n] = paid, usable[n]  # type: ignore[call-overload]
                self._take(Taken(self.world.us, costs, self._numbers, asked))

    # What is held

    def check(self) -> None:
        """The store holds what was taken, and its counters are what its data say."""
        if not self.figures:
            return
        holds = self.read()
        for drift in holds.wrong():
            self.world.fail(f"counters: {drift}")
        self._check_debts(holds)
        self._check_holds(holds)

    def _check_debts(self, holds: Holds) -> None:
        if holds.debts != self.debts:
            self.world.fail(f"debts: {self.debts} are owed, the store says {holds.debts}")

    def _check_holds(self, holds: Holds) -> None:
        """What was taken is held until a window later, at least."""
        for n, figure in enumerate(self.figures):
            rows = sorted(holds.rows[n].items())
            needed = held = 0
            for one in reversed(self._inside(n)):
                ends = one.at + figure.limit.window_ms * 1000
                while rows and rows[-1][0] * 1000 >= ends:
                    held += rows.pop()[1]
                needed += one.costs[n]
                if held < needed:
                    self.world.fail(
                        f"holds: of limit {n + 1} {needed} was taken since "
                        f"{(self.world.us - one.at) / 1000} ms, and {held} is held for it"
                    )

    def leftovers(self) -> dict[str, int]:
        """What should be 0 when all is over and a window has passed."""
        holds = self.read()
        found = {f"open in dimension {d}": cost for d, cost in holds.open.items()}
        for n, rows in enumerate(holds.rows):
            found[f"held of limit {n + 1}"] = sum(
                cost for ends, cost in rows.items() if ends > self.now
            )
            found[f"debt of limit {n + 1}"] = holds.debts[n]
        return found


def _number(taken: Taken) -> int:
    return taken.number
