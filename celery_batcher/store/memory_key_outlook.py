"""What the caps of a key leave for an operation of it, in the store in memory."""

from __future__ import annotations

from .memory_index import ALL
from .memory_keys import forget_empty, lapse_key
from .memory_state import Act, KeyState, WatcherState
from .outlook import KeyOutlook


def key_outlook(act: Act, name: str, key: str, cost: int, grace_ms: int) -> KeyOutlook | None:
    """For an operation of this cost, and for the key's next one; None when the key has no caps."""
    watcher = act.state.watchers.get(name)
    if watcher is None or not key or not watcher.options.capped:
        return None
    options = watcher.options
    lapse_key(act, name, key, grace_ms)
    forget_empty(watcher, key)
    state = watcher.keys.get(key, KeyState())
    first = _next_cost(watcher, key, cost)
    held = [hold for hold in state.holds.values() if options.key_capacity is not None]
    lacking = sum(hold.cost for hold in held) + max(cost, first) - (options.key_capacity or 0)
    due = act.state.key_ends.get((name, key), act.now)
    return KeyOutlook(
        capacity=options.key_capacity,
        window_ms=options.key_window_ms,
        concurrency=options.key_concurrency,
        started=sum(hold.cost for hold in held if hold.ends is not None),
        unclaimed=sum(hold.cost for hold in held if hold.ends is None),
        batches=len(state.flights) if options.key_concurrency else 0,
        next_cost=first,
        wait_ms=_wait_for(act, state, lacking) if options.key_capacity is not None else 0,
        asked_ms=max(0, due - act.now) if state.waits else -1,
    )


def first_key_due(act: Act, name: str) -> int:
    """Until the first of a watcher's keys is looked at, at least."""
    wait = 0
    for (watcher, _), at in sorted(act.state.key_ends.items(), key=lambda item: item[1])[:100]:
        wait = max(0, at - act.now)
        if watcher == name:
            break
    return wait


def _next_cost(watcher: WatcherState, key: str, other: int) -> int:
    """What the next operation of a key costs; that of another when none waits."""
    if key in watcher.keys and watcher.keys[key].aside:
        return watcher.keys[key].aside[0][0].entry.cost
    queues = [watcher.queues.get((priority, key)) for priority in ALL]
    heads = [one for queue in queues if queue for one in queue.peek(1)]
    return heads[0].entry.cost if heads else other


def _wait_for(act: Act, state: KeyState, lacking: int) -> int:
    """Until so much of what a key holds has ended; 0 when it is there, -1 unknown."""
    if lacking <= 0:
        return 0
    ends = [(hold.ends, hold.cost) for hold in state.holds.values() if hold.ends is not None]
    for at, cost in sorted(ends):
        lacking -= cost
        if lacking <= 0:
            return max(1, at - act.now)
    return -1
