"""What bears upon the next batch, and where an operation is, in the store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .. import wire
from ..operation import Priority
from .counts import WatcherCounts
from .memory_counts import counts
from .memory_holds import LimitNow, free, lapse, limits_now, wait_for
from .memory_index import first_aside, first_ready
from .memory_key_outlook import first_key_due, key_outlook
from .memory_sharing import need_of, standing_of
from .memory_state import Act, Waiting, WatcherState
from .options import Limits
from .outlook import BatcherShare, Found, LimitOutlook, Outlook, Sought

_BYTES = 256 * 1024
"""Of delayed operations that are looked at for the next of a watcher."""


def explain(
    act: Act,
    watcher: str,
    limits: Limits,
    costs: Sequence[int],
    priority: int,
    key: str,
    *,
    unclaimed: Mapping[str, Sequence[int]],
) -> Outlook:
    """The outlook; ``unclaimed`` is what batches of each batcher hold without an end."""
    state, resource, now = act.state, act.resource, act.now
    told = counts(act)
    known = state.watchers.get(watcher)
    ready = first_ready(known) if known else None
    head = ready or (first_aside(known) if known else None)
    if head and not costs:
        costs, key = head.entry.costs, head.entry.key or ""
        priority = Priority.high if known and _in_group(known, head) else head.entry.priority
    every = limits_now(act, limits.grace_ms) if limits.limited else []
    lapse(act, every)
    rows = {row.name: row for row in told.watchers}
    return Outlook(
        now_ms=now,
        paused_ms=told.paused_ms,
        closed_ms=max(0, resource.closed_until - now),
        turn_ms=told.turn_ms,
        draining=told.draining,
        admitted=told.admitted,
        open_batches=told.open_batches,
        running_batches=told.running_batches,
        buffered=told.buffered,
        buffered_cost=told.admitted_cost + told.waiting_cost + told.delayed_cost,
        due_ms=_due(act, watcher),
        last_due_ms=max((max(0, one.due - now) for one in state.later), default=0),
        sharing=sum(len(ring) for ring in state.watcher_rings),
        watcher=rows.get(watcher, WatcherCounts(watcher)),
        max_concurrent_batches=known.options.max_concurrent_batches if known else 0,
        open_cost=known.open_cost if known else 0,
        by_priority=_by_priority(known),
        head=head.data if head else b"",
        keys_due_ms=first_key_due(act, watcher) if head and not ready else -1,
        key=key_outlook(act, watcher, key, costs[0] if costs else 0, limits.grace_ms),
        limits=tuple(_limit(act, one, costs, limits.flush_ms) for one in every),
        batchers=_batchers(act, every, costs, priority, limits.flush_ms, unclaimed),
    )


def _in_group(watcher: WatcherState, head: Waiting) -> bool:
    groups = [*watcher.together, *(one for key in watcher.keys.values() for one in key.aside)]
    return any(group[0] is head for group in groups)


def _due(act: Act, watcher: str) -> int:
    """Until a delayed operation of the watcher waits again, if it is among the next; else -1."""
    seen = 0
    for one in sorted(act.state.later, key=lambda one: one.due)[:100]:
        if one.watcher == watcher:
            return max(0, one.due - act.now)
        seen += sum(len(waiting.data) for waiting in one.ones)
        if seen >= _BYTES:
            break
    return -1


def _by_priority(watcher: WatcherState | None) -> tuple[int, ...]:
    if watcher is None:
        return (0,) * (1 + len(Priority))
    return sum(len(group) for group in watcher.together), *watcher.by_priority


def _limit(act: Act, limit: LimitNow, costs: Sequence[int], flush_ms: int) -> LimitOutlook:
    cost, state = limit.cost_of(costs), limit.state
    lacking = cost - free(act, limit)
    wait = wait_for(act, limit, lacking) if lacking > 0 else 0
    per_flush = limit.capacity * flush_ms / limit.window_ms
    credit, since = per_flush, act.resource.credit_ms
    if since is not None:
        credit = state.credit + limit.capacity * (act.now - since) / limit.window_ms
    return LimitOutlook(
        state.limit,
        limit.capacity,
        state.held,
        act.resource.open[limit.dimension],
        state.debt,
        max(0.0, min(credit, max(2 * per_flush, cost))) + state.refund,
        -1 if cost > limit.capacity else wait,
    )


def _batchers(
    act: Act,
    limits: Sequence[LimitNow],
    costs: Sequence[int],
    priority: int,
    flush_ms: int,
    unclaimed: Mapping[str, Sequence[int]],
) -> tuple[BatcherShare, ...]:
    if not limits:
        return ()
    dimensions, nth = limits[-1].dimension, int(priority == Priority.backfill)
    standing = standing_of(act, nth, costs, limits, flush_ms)
    nothing = (0,) * dimensions
    shares = []
    for name, member in sorted(act.resource.members.items()):
        needs = [one.need for one in member.parties if one.need and one.need.until > act.now]
        own = name == act.batcher
        first = nothing if own else need_of(act, member, standing, dimensions)
        opened = tuple(unclaimed.get(name, nothing))
        shares.append(BatcherShare(name, member.weight, bool(needs), opened, tuple(first)))
    return tuple(shares)


def seek(act: Act, id: str, part: str, watcher: str) -> Sought:
    """Where an operation is, all of a part in one step."""
    looked = 0
    for found, entry in _PARTS[part](act, watcher):
        looked += 1
        if entry.id == id:
            return Sought(looked, found=found)
    return Sought(looked)


def _batches(act: Act, _: str) -> Iterator[tuple[Found, wire.Entry]]:
    for batch in act.state.batches.values():
        running = batch.nonce is not None
        ms = batch.deadline - act.now if running else act.now - batch.open_since
        for one in batch.entries:
            name = "running" if running else "released"
            yield Found(name, batch.watcher, one.data, batch=batch.id, ms=ms), one.entry


def _ranked(watcher: str, ones: Sequence[Waiting]) -> Iterator[tuple[Found, wire.Entry]]:
    cost = 0
    for ahead, one in enumerate(ones):
        yield Found("waiting", watcher, one.data, ahead, cost), one.entry
        cost += one.entry.cost


def _waiting(act: Act, watcher: str) -> Iterator[tuple[Found, wire.Entry]]:
    known = act.state.watchers.get(watcher)
    if known is None:
        return
    groups = sorted(known.together, key=lambda group: group[0].sequence)
    yield from _ranked(watcher, [one for group in groups for one in group])
    for queue in known.queues.values():
        yield from _ranked(watcher, queue.peek(len(queue.returned) + len(queue.arrived)))


def _heads(act: Act, watcher: str) -> Iterator[tuple[Found, wire.Entry]]:
    known = act.state.watchers.get(watcher)
    for queue in known.queues.values() if known else ():
        yield from _ranked(watcher, queue.peek(1))


def _delayed(act: Act, _: str) -> Iterator[tuple[Found, wire.Entry]]:
    for delayed in act.state.later:
        ms = max(0, delayed.due - act.now)
        for one in delayed.ones:
            yield Found("delayed", delayed.watcher, one.data, ms=ms), one.entry


def _dead(act: Act, watcher: str) -> Iterator[tuple[Found, wire.Entry]]:
    known = act.state.watchers.get(watcher)
    for letter in known.dead if known else ():
        found = Found(
            "dead", watcher, letter.entry, ms=act.now - letter.at_ms, reason=letter.reason
        )
        yield found, wire.decode_entry(letter.entry)[0]


_PARTS = {
    "batches": _batches,
    "heads": _heads,
    "waiting": _waiting,
    "delayed": _delayed,
    "dead": _dead,
}
