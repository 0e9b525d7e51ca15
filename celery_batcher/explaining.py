"""Why operations wait, and for how long: what `Batcher.explain` and `Batcher.eta` end in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import wire
from .binding import (
    Question,
    Reason,
    before_its_turn,
    eta_of,
    gates,
    lasting,
    longest,
    reasons,
    windows_of,
)
from .costs import Cost, named
from .errors import ConfigurationError, NoWatcherError
from .status import WatcherStatus, watcher_status
from .store.base import Store
from .store.outlook import Found, Outlook
from .watcher import Watcher

if TYPE_CHECKING:
    from .controls import Controls

MOST = 100_000
"""Operations that `Batcher.explain` looks at, unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an operation, or the next one of a watcher, does not run; ``str()`` is a text of it.

    Attributes:
        state: ``waiting``, ``delayed``, ``released``, ``running``, ``dead``, ``unknown`` (not
            found); of a watcher without operations ``idle``.
        watcher: None where the operation is unknown.
        operation: its id; None where there is none.
        age: seconds since it was enqueued.
        ahead: operations before it in the queue of its watcher, priority and key.
        at_most: waiting operations of its watcher that may go before it; what arrives later with a
            higher priority is not among them.
        reasons: why, the first is what binds; there are none when the next flush may take it.
        earliest: seconds until it can run, at least, unless capacity is raised, given back or
            recalled; None: nobody knows.
        batch: the id of the batch it is in.
        row: the counts of its watcher.
        looked: operations that were looked at to find it.
    """

    state: str
    watcher: str | None = None
    operation: str | None = None
    cost: Cost = 0
    key: str | None = None
    priority: str = "normal"
    attempt: int = 1
    age: float = 0.0
    ahead: int = 0
    at_most: int = 0
    reasons: tuple[Reason, ...] = ()
    earliest: float | None = None
    batch: str | None = None
    row: WatcherStatus | None = None
    looked: int = 0

    def __str__(self) -> str:
        return "\n  ".join(_lines(self))


def explain(batcher: Controls, what: str | Watcher, most: int) -> Explanation:
    """Why an operation or the next of a watcher waits."""
    name = _name_of(batcher, what)
    names = {*batcher.watchers, *(row.name for row in batcher.store.counts().watchers)}
    if name in names:
        return _of_watcher(batcher, name)
    found, looked, over = find(batcher.store, name, sorted(names), most)
    if found is None:
        return _unknown(batcher, name, looked, over=over)
    return _of_operation(batcher, found, looked)


def _name_of(batcher: Controls, what: object) -> str:
    if isinstance(what, Watcher):
        if what.batcher is not batcher:
            raise NoWatcherError(f"{what!r} is not one of batcher {batcher.name}")
        return what.name
    if isinstance(what, str) and what:
        return what
    raise ConfigurationError(f"explain({what!r}): an operation's id, or a watcher or its name")


def eta(batcher: Controls) -> float | None:
    """Seconds until the whole buffer is released."""
    outlook = batcher.store.explain("", batcher.limits())
    return eta_of(outlook, batcher.name, turns=_turns(batcher))


def find(store: Store, id: str, names: Iterable[str], most: int) -> tuple[Found | None, int, bool]:
    """Where an operation is; how many were looked at, and whether those were all.

    What moves while it is looked for may have been released: batches are looked at again.
    """
    looked = 0
    for part, name in _places(list(names)):
        cursor, begun = "", False
        while cursor or not begun:
            if looked >= most:
                return None, looked, False
            step = store.seek(id, part, name, cursor)
            looked, cursor, begun = looked + step.looked, step.cursor, True
            if step.found:
                return step.found, looked, True
    return None, looked, True


def _places(names: list[str]) -> Iterator[tuple[str, str]]:
    """Where to look, what is cheap first."""
    yield "batches", ""
    for name in names:
        yield "heads", name
    yield "delayed", ""
    for part in ("waiting", "dead"):
        for name in names:
            yield part, name
    yield "batches", ""


def _turns(batcher: Controls) -> bool:
    """Whether whoever flushes holds the turn between flushes."""
    return bool(batcher.option("flush_mode") == "turn")


def _of_watcher(batcher: Controls, name: str) -> Explanation:
    limits = batcher.limits()
    outlook = batcher.store.explain(name, limits)
    if outlook.head:
        found = Found("waiting", name, outlook.head)
        return _explanation(batcher, found, outlook)
    question = Question(outlook, (), limits, batcher.dimensions, _turns(batcher))
    row = watcher_status(outlook.watcher)
    if outlook.watcher.delayed:
        why = (_delayed(outlook.due_ms), *before_its_turn(question))
        return Explanation("delayed", name, reasons=why, earliest=longest(why), row=row)
    why = _in_lanes(outlook, *before_its_turn(question))
    return Explanation("idle", name, reasons=why, row=row)


def _of_operation(batcher: Controls, found: Found, looked: int) -> Explanation:
    entry, _ = wire.decode_entry(found.entry)
    of_it = (entry.costs, entry.priority, entry.key or "")
    outlook = batcher.store.explain(found.watcher, batcher.limits(), *of_it)
    return _explanation(batcher, found, outlook, looked)


def _explanation(batcher: Controls, found: Found, outlook: Outlook, looked: int = 0) -> Explanation:
    entry, _ = wire.decode_entry(found.entry)
    question = Question(outlook, entry.costs, batcher.limits(), batcher.dimensions, _turns(batcher))
    why, earliest = _why(question, found)
    waiting = found.state == "waiting"
    before = sum(outlook.by_priority[: 2 + entry.priority]) - 1 if waiting else 0
    return Explanation(
        state=found.state,
        watcher=found.watcher,
        operation=entry.id,
        cost=named(entry.costs, batcher.dimensions),
        key=entry.key,
        priority=wire.PRIORITIES[entry.priority],
        attempt=entry.attempt,
        age=max(0, outlook.now_ms - entry.enqueued_ms) / 1000,
        ahead=found.ahead,
        at_most=max(found.ahead, before) if looked else 0,
        reasons=why,
        earliest=earliest,
        batch=found.batch or None,
        row=watcher_status(outlook.watcher),
        looked=looked,
    )


def _why(question: Question, found: Found) -> tuple[tuple[Reason, ...], float | None]:
    """Reasons, and seconds until it can run at the earliest."""
    if found.state == "dead":
        ago, last = lasting(found.ms), (found.reason.strip().splitlines() or ["no reason"])[-1]
        return (Reason("dead", f"it died {ago} ago: {last}"),), None
    if found.state == "running":
        text = f"a worker has it, in batch {found.batch}, for {lasting(found.ms)} more at most"
        return (Reason("running", text),), 0.0
    if found.state == "released":
        text = f"batch {found.batch} was released {lasting(found.ms)} ago, no worker has claimed it"
        why = (*gates(question), Reason("unclaimed", f"{text}: are there enough workers?", 0.0))
        return why, longest(why)
    if found.state == "delayed":
        why = (_delayed(found.ms), *before_its_turn(question))
        return why, longest(why)
    why = reasons(question)
    earliest = longest(why)
    return why, earliest if earliest is None else max(
        earliest, windows_of(question, found.ahead_cost)
    )


def _delayed(ms: int) -> Reason:
    if ms < 0:
        return Reason("delayed", "it is delayed, as it is to be tried again later")
    return Reason("delayed", f"it is delayed, and waits again in {lasting(ms)}", ms / 1000)


def _in_lanes(outlook: Outlook, *why: Reason) -> tuple[Reason, ...]:
    """Operations in lanes have no place yet: a flush takes them in."""
    if not outlook.admitted:
        return ()
    text = f"operations of the batcher in lanes or about to be published: {outlook.admitted}"
    return (*why, Reason("in-lanes", text))


def _unknown(batcher: Controls, id: str, looked: int, *, over: bool) -> Explanation:
    outlook = batcher.store.explain("", batcher.limits())
    question = Question(outlook, (), batcher.limits(), batcher.dimensions, _turns(batcher))
    if over:
        text = "it does not wait, run or lie dead here: it is done, or was never enqueued"
        text += ", or is in a lane" if outlook.admitted else ""
    else:
        text = f"it is not among the first {looked} operations: look at more with most=..."
    why = (Reason("not-found", text), *_in_lanes(outlook, *before_its_turn(question)))
    return Explanation("unknown", operation=id, reasons=why, looked=looked)


# The text


def _lines(one: Explanation) -> Iterator[str]:
    if one.operation is None:
        yield f"watcher {one.watcher} has no operation that waits"
    elif one.watcher is None:
        yield f"operation {one.operation} is unknown"
    else:
        yield f"operation {one.operation} of {one.watcher} is {one.state}"
        yield _facts(one)
    for n, reason in enumerate(one.reasons):
        yield f"{'also' if n else 'because'}: {reason.text}"
    if one.state == "waiting":
        if not one.reasons:
            yield "nothing keeps it but its place: flushes take operations in their order"
        yield _place(one)
        known = one.earliest is not None
        yield f"can run: in {one.earliest:.3g} s at the earliest" if known else "can run: unknown"
    if one.row is not None:
        yield _row(one.row)


def _facts(one: Explanation) -> str:
    key = "" if one.key is None else f", key {one.key}"
    return (
        f"cost {one.cost}{key}, priority {one.priority}, attempt {one.attempt}, "
        f"enqueued {lasting(one.age * 1000)} ago"
    )


def _place(one: Explanation) -> str:
    if not one.looked:
        return "before it: nothing, it is the next of its watcher"
    return f"before it: {one.ahead} in its queue, at most {one.at_most} of its watcher"


def _row(row: WatcherStatus) -> str:
    batches = f"{row.open_batches} released, {row.running_batches} running"
    return (
        f"its watcher: {row.waiting} waiting (cost {row.waiting_cost}), {row.delayed} delayed, "
        f"{row.dead} dead; batches: {batches}{', on probe' if row.on_probe else ''}"
    )
