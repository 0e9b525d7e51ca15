"""What keeps an operation from running: decided from an outlook, without asking anybody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .store.options import Limits
from .store.outlook import KeyOutlook, LimitOutlook, Outlook

_PROBE = (
    "its watcher is on probe, one operation at a time, because no worker claims its batches: does "
    "a worker consume its queue?"
)
_LONG = 600_000
"""Milliseconds that are told in minutes."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an operation does not run.

    Attributes:
        code: a word for programs.
        text: a sentence for humans.
        wait: seconds for which it lasts at least, as far as is known; None: nobody knows.
    """

    code: str
    text: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What keeps an operation of these costs, by dimension?

    Attributes:
        limits: as the code has them.
        dimensions: the names of costs.
        turns: whether a turn is held while the batcher is flushed; not in tick mode.
    """

    outlook: Outlook
    costs: Sequence[int]
    limits: Limits
    dimensions: Sequence[str]
    turns: bool = True

    @property
    def first_cost(self) -> int:
        """What it costs in the first dimension."""
        return self.costs[0] if self.costs else 0

    def cost_in(self, one: LimitOutlook) -> int:
        """What it costs in the dimension of a limit."""
        at = one.limit.dimension - 1
        return self.costs[at] if at < len(self.costs) else 0

    def units(self, one: LimitOutlook) -> str:
        """The name of a limit's dimension, behind a number."""
        at = one.limit.dimension - 1
        name = self.dimensions[at] if at < len(self.dimensions) else f"of dimension {at + 1}"
        return f" {name}" if name else ""


def reasons(question: Question) -> tuple[Reason, ...]:
    """All that keeps it from being released, what is asked first before the others."""
    return tuple(reason for check in _CHECKS for reason in check(question))


def before_its_turn(question: Question) -> tuple[Reason, ...]:
    """What keeps anything from being released, or would keep it however much is free."""
    return tuple(reason for check in _GENERAL for reason in check(question))


def gates(question: Question) -> tuple[Reason, ...]:
    """All that keeps a released batch from being claimed, but for the capacity."""
    return tuple(reason for check in _GATES for reason in check(question))


def longest(found: Sequence[Reason]) -> float | None:
    """Seconds until all reasons are over at the earliest; None: nobody knows."""
    waits = [one.wait for one in found if one.wait is not None]
    return max(waits, default=0.0) if len(waits) == len(found) else None


def windows_of(question: Question, before: int) -> float:
    """Seconds that pass at the present capacity until operations of this cost have gone before it.

    A window takes no more than the capacity, that of its key as well, and all but the last must be
    full. Costs are those of the first dimension.
    """
    seconds = 0.0
    for one in question.outlook.limits:
        if one.limit.dimension == 1 and one.usable > 0:
            windows = max(0, before + question.cost_in(one) - 1) // one.usable
            seconds = max(seconds, windows * one.limit.window_ms / 1000)
    key = question.outlook.key
    if key and key.capacity:
        windows = max(0, before + question.first_cost - 1) // key.capacity
        seconds = max(seconds, windows * key.window_ms / 1000)
    return seconds


def eta_of(outlook: Outlook, batcher: str, *, turns: bool) -> float | None:
    """Seconds until all that is in the buffer is released; see `Batcher.eta`."""
    if not outlook.buffered:
        return 0.0
    if outlook.paused_ms == -1 or not outlook.limits or (turns and not outlook.turn_ms):
        return None
    weights = {one.name: one.weight for one in outlook.batchers}
    own = weights.get(batcher, 1)
    rivals = [one.weight for one in outlook.batchers if one.in_need and one.name != batcher]
    part = own / (own + sum(rivals))
    time_ms = 0.0
    for one in outlook.limits:
        lacking = outlook.buffered_cost - one.credit
        if one.limit.dimension > 1 or not outlook.buffered_cost or lacking <= 0:
            continue
        if not one.usable:
            return None
        time_ms = max(time_ms, lacking * one.limit.window_ms / (one.usable * part))
    closed_ms = max(outlook.paused_ms, outlook.closed_ms, outlook.guard_ms)
    return max(closed_ms + time_ms, outlook.last_due_ms) / 1000


def lasting(ms: float) -> str:
    """Milliseconds, for humans."""
    return f"{ms / 1000:.3g} s" if ms < _LONG else f"{ms / 60_000:.0f} min"


# Checks, in the order of a release


def _flushing(question: Question) -> Iterator[Reason]:
    if question.turns and not question.outlook.turn_ms:
        yield Reason(
            "no-turn",
            "no turn is held, so that nobody flushes: is beat running, and a worker for its tasks?",
        )


def _paused(question: Question) -> Iterator[Reason]:
    ms = question.outlook.paused_ms
    if ms == -1:
        yield Reason("paused", "the batcher is paused until somebody resumes it")
    elif ms:
        yield Reason("paused", f"the batcher is paused for {lasting(ms)} more", ms / 1000)


def _closed(question: Question) -> Iterator[Reason]:
    if ms := question.outlook.closed_ms:
        text = f"the resource asked for less (a 429) and is closed for {lasting(ms)} more"
        yield Reason("closed", text, ms / 1000)


def _restarted(question: Question) -> Iterator[Reason]:
    if ms := question.outlook.guard_ms:
        text = f"the store was restarted, nothing starts for {lasting(ms)} more"
        yield Reason("restarted", text, ms / 1000)


def _batches(question: Question) -> Iterator[Reason]:
    outlook, limits = question.outlook, question.limits
    if outlook.open_batches >= limits.max_open_batches:
        yield Reason(
            "max-open-batches",
            f"{outlook.open_batches} released batches wait for workers, as many as may "
            "(max_open_batches): are workers running?",
        )
    all_ = outlook.open_batches + outlook.running_batches
    if limits.max_concurrent_batches and all_ >= limits.max_concurrent_batches:
        text = f"{all_} batches are released or run, as many as may (max_concurrent_batches)"
        yield Reason("max-concurrent-batches", text)


def _watcher(question: Question) -> Iterator[Reason]:
    outlook, row = question.outlook, question.outlook.watcher
    all_, most = row.open_batches + row.running_batches, outlook.max_concurrent_batches
    if most and all_ >= most:
        text = f"{all_} batches of its watcher are released or run, as many as may"
        yield Reason("watcher-concurrency", f"{text} (max_concurrent_batches of the watcher)")
    if row.on_probe and row.open_batches:
        yield Reason("probe", _PROBE)


def _key(question: Question) -> Iterator[Reason]:
    key = question.outlook.key
    if key is None:
        return
    if ms := key.guard_ms:
        text = f"the store was restarted, nothing of a capped key starts for {lasting(ms)} more"
        yield Reason("restarted", text, ms / 1000)
    found = [*_key_capacity(key, question.first_cost), *_key_concurrency(key)]
    yield from found
    if key.asked_ms > 0 and not found and not key.guard_ms:
        text = f"its key was at its cap, and is asked again in {lasting(key.asked_ms)}"
        yield Reason("key-waits", text, 0.0 if key.concurrency else key.asked_ms / 1000)


def _key_capacity(key: KeyOutlook, cost: int) -> Iterator[Reason]:
    """Nothing overtakes within a key: what the next one of it waits for, all others wait for."""
    if key.capacity is None:
        return
    per, room = lasting(key.window_ms), key.capacity - key.started - key.unclaimed
    if max(cost, key.next_cost) > key.capacity:
        one = (
            f"it costs {cost}"
            if cost > key.capacity
            else f"the next of its key costs {key.next_cost}"
        )
        text = (
            f"{one}, more than the key_capacity of {key.capacity} per {per}: its key waits until "
        )
        yield Reason("key-too-dear", text + "that is raised")
    elif max(cost, key.next_cost) > room:
        one = str(cost) if cost > room else f"the next of its key, of cost {key.next_cost}"
        text = f"the key_capacity of {key.capacity} per {per} has no room for {one}: {key.started} "
        text += f"started within the last {per}"
        if key.unclaimed:
            text += f", {key.unclaimed} are held by released batches that no worker has claimed"
        yield Reason("key-capacity", text, key.wait_ms / 1000 if key.wait_ms > 0 else None)


def _key_concurrency(key: KeyOutlook) -> Iterator[Reason]:
    if key.concurrency and key.batches >= key.concurrency:
        text = f"{key.batches} batches of its key are released or run, as many as may"
        yield Reason("key-concurrency", f"{text} (key_concurrency)")


def _all_keys(question: Question) -> Iterator[Reason]:
    outlook = question.outlook
    if outlook.key is None or outlook.keys_due_ms < 0:
        return
    text = "all keys of its watcher that have operations are at their caps: the first is asked "
    text += f"again in {lasting(outlook.keys_due_ms)}"
    if outlook.key.concurrency:
        yield Reason("all-keys", f"{text}, or when a batch of it ends", 0.0)
    else:
        yield Reason("all-keys", text, outlook.keys_due_ms / 1000)


def _probe(question: Question) -> Iterator[Reason]:
    """Last of all, as it may have its one operation now."""
    row = question.outlook.watcher
    if row.on_probe and not row.open_batches:
        yield Reason("probe", _PROBE, 0.0)


def _dear(question: Question) -> Iterator[Reason]:
    for one in question.outlook.limits:
        cost, units, capacity = question.cost_in(one), question.units(one), one.limit.capacity
        if cost <= one.usable:
            continue
        per = lasting(one.limit.window_ms)
        if cost <= capacity:
            leased = question.limits.resource.factor is not None
            text = (
                f"it costs {cost}{units}, and of the capacity of {capacity} per {per} only "
                f"{one.usable} may be used now: it waits until more "
                f"{'is leased' if leased else 'has come back'}"
            )
        else:
            ever = _in_code(question, one)
            written = "" if ever == capacity else f" (the code says {ever})"
            text = (
                f"it costs {cost}{units}, more than the capacity of {capacity} per {per}{written}: "
                "it waits until that is raised"
            )
        yield Reason("too-dear", text)


def _in_code(question: Question, one: LimitOutlook) -> int:
    """The capacity of a limit as the code has it; that of now when it has no such limit."""
    limit = one.limit
    for written in question.limits.all:
        if (written.dimension, written.window_ms) == (limit.dimension, limit.window_ms):
            return written.capacity
    return limit.capacity


def _share(question: Question) -> Iterator[Reason]:
    outlook = question.outlook
    for one in outlook.limits:
        if one.limit.dimension > 1 or not outlook.watcher.open_batches:
            continue
        per_flush = one.usable * question.limits.flush_ms / one.limit.window_ms
        share = 2 * per_flush / max(1, outlook.sharing)
        if question.cost_in(one) > share - outlook.open_cost:
            yield Reason(
                "watcher-unclaimed",
                f"released batches of its watcher cost {outlook.open_cost}, as much as may be "
                "while no worker has claimed them: are there enough workers?",
            )
            return


def _room(question: Question) -> Iterator[Reason]:
    for one in question.outlook.limits:
        cost = question.cost_in(one)
        free = one.usable - one.started - one.unclaimed
        if not cost or cost > one.usable:
            continue
        if cost > free - one.debt:
            wait = one.wait_ms / 1000 if one.wait_ms > 0 else None
            yield Reason("capacity", _taken(question, one), wait)
        else:
            yield from _left_to_others(question, one, free)


def _taken(question: Question, one: LimitOutlook) -> str:
    """Who has a capacity that has no room."""
    at, per = one.limit.dimension - 1, lasting(one.limit.window_ms)
    parts = [f"{one.started} started within the last {per}"]
    if one.unclaimed:
        by = ", ".join(
            f"{share.name} {share.unclaimed[at]}"
            for share in question.outlook.batchers
            if share.unclaimed[at]
        )
        parts.append(f"{one.unclaimed} are held by released batches that no worker has claimed")
        parts[-1] += f" ({by})" if by else ""
    if one.debt:
        parts.append(f"{one.debt} are owed for what cost more than was said")
    return (
        f"the capacity of {one.usable}{question.units(one)} per {per} has no room for "
        f"{question.cost_in(one)}: {', '.join(parts)}"
    )


def _left_to_others(question: Question, one: LimitOutlook, free: int) -> Iterator[Reason]:
    at, cost = one.limit.dimension - 1, question.cost_in(one)
    first = {share.name: share.first[at] for share in question.outlook.batchers if share.first[at]}
    if first and cost + sum(first.values()) > min(free, one.credit):
        names = ", ".join(f"{name} ({need})" for name, need in first.items())
        text = (
            f"{free}{question.units(one)} are free, and left to batchers whose turn it is: {names}"
        )
        yield Reason("others-first", text)


def _credit(question: Question) -> Iterator[Reason]:
    for one in question.outlook.limits:
        cost, window = question.cost_in(one), one.limit.window_ms
        if one.credit < cost <= one.usable:
            ms = (cost - one.credit) * window / one.usable
            yield Reason(
                "credit",
                f"the capacity of {one.usable}{question.units(one)} per {lasting(window)} is given "
                f"out evenly: {one.credit:.0f} of {cost} have come so far",
                ms / 1000,
            )


_GATES = (_paused, _closed, _restarted)
_GENERAL = (_flushing, *_GATES, _batches, _dear)
_CHECKS = (
    _flushing,
    *_GATES,
    _batches,
    _watcher,
    _key,
    _all_keys,
    _dear,
    _share,
    _room,
    _credit,
    _probe,
)
