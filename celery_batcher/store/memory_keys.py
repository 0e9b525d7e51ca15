"""Caps per key, in the store in memory: what a key holds, when it waits and when it comes back."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

from ..operation import Priority
from .memory_index import ALL, URGENT, join_groups, reindex
from .memory_state import Act, Batch, KeyHold, KeyState, Waiting, WatcherState

ASK_MS = 30_000
"""After so long a key is asked again that waits for no known time."""
BROUGHT_BACK = 100


@dataclass(frozen=True, slots=True)
class KeyCaps:
    """The caps of a watcher's keys at the moment of an act."""

    act: Act
    name: str
    grace_ms: int

    @property
    def watcher(self) -> WatcherState:
        return self.act.watcher(self.name)

    def room(self, one: Waiting, *, backfills: bool = False) -> float | None:
        """What this operation and those behind it may cost; None when its key has to wait."""
        key, options = one.entry.key or "", self.watcher.options
        if not key or not options.capped:
            return math.inf
        state = self.watcher.keys.setdefault(key, KeyState())
        if backfills and state.urgent_first:
            return None
        room, busy = math.inf, False
        if not state.waits and options.key_capacity is not None:
            lapse_key(self.act, self.name, key, self.grace_ms)
            room = options.key_capacity - sum(hold.cost for hold in state.holds.values())
        if options.key_concurrency:
            busy = len(state.flights) >= options.key_concurrency
        may = not state.waits and not busy and one.entry.cost <= room
        if not may and not state.waits:
            state.waits = True
            note_end(self.act, self.name, key, self.act.now + ASK_MS)
        forget_empty(self.watcher, key)
        return room if may else None

    def set_aside(self, group: list[Waiting]) -> None:
        """A group waits with its key."""
        aside = self.watcher.keys[group[0].entry.key or ""].aside
        insort(aside, group, key=lambda one: one[0].sequence)
        reindex(self.act.state, self.name)  # back-fills waited for it


# What a key holds


def forget_empty(watcher: WatcherState, key: str) -> None:
    """Nothing is kept of a key that neither holds nor waits."""
    if watcher.keys.get(key) == KeyState():
        del watcher.keys[key]


def note_end(act: Act, name: str, key: str, later: float = math.inf) -> None:
    """The key is looked at when its next hold ends, or else at ``later``."""
    state = act.watcher(name).keys.get(key, KeyState())
    ends = [hold.ends for hold in state.holds.values() if hold.ends is not None]
    due = min(act.state.key_ends.get((name, key), math.inf), later, *ends)
    if due < math.inf:
        act.state.key_ends[name, key] = int(due)


def lapse_key(act: Act, name: str, key: str, grace_ms: int) -> None:
    """Holds of a key that are over go; none lasts longer than one that begins now."""
    watcher = act.watcher(name)
    latest = act.now + watcher.options.key_window_ms + grace_ms
    holds = watcher.keys[key].holds if key in watcher.keys else {}
    for id, hold in list(holds.items()):
        if hold.ends is not None:
            hold.ends = min(hold.ends, latest)
            if hold.ends <= act.now:
                del holds[id]


def hold_key(act: Act, batch: Batch) -> None:
    """A batch of a capped key is released."""
    watcher = act.watcher(batch.watcher)
    key = batch.entries[0].entry.key
    if not key or not watcher.options.capped:
        return
    batch.key = key
    state = watcher.keys.setdefault(key, KeyState())
    if watcher.options.key_concurrency:
        state.flights.add(batch.id)
    if watcher.options.key_capacity is not None and batch.cost:
        state.holds[batch.id] = KeyHold(batch.cost)
        batch.holds_key = True
    forget_empty(watcher, key)


def _hold_of(act: Act, batch: Batch) -> KeyHold | None:
    keys = act.watcher(batch.watcher).keys
    state = keys.get(batch.key) if batch.key else None
    return state.holds.get(batch.id) if state else None


def _started_cost(watcher: WatcherState, key: str) -> int:
    """What a key holds with an end."""
    return sum(hold.cost for hold in watcher.keys[key].holds.values() if hold.ends is not None)


def key_refuses(act: Act, batch: Batch, grace_ms: int) -> tuple[bool, bool]:
    """Whether what started of its key leaves no room for a batch; and whether nothing would."""
    watcher, hold = act.watcher(batch.watcher), _hold_of(act, batch)
    capacity = watcher.options.key_capacity
    if hold is None or batch.key is None or capacity is None:
        return False, False
    lapse_key(act, batch.watcher, batch.key, grace_ms)
    started = _started_cost(watcher, batch.key)
    return started + hold.cost > capacity, hold.cost > capacity


def start_key(act: Act, batch: Batch, grace_ms: int) -> None:
    """The handler of a batch starts: its hold has an end, and with every renewal a later one."""
    hold = _hold_of(act, batch)
    if hold is not None and batch.key is not None:
        window = act.watcher(batch.watcher).options.key_window_ms
        hold.ends = act.now + window + grace_ms
        note_end(act, batch.watcher, batch.key)


def key_stands(act: Act, batch: Batch, grace_ms: int) -> bool:
    """Whether a claimed batch still has its hold, and the capacity of its key allows it."""
    if batch.key is None or not batch.holds_key:
        return True
    watcher = act.watcher(batch.watcher)
    lapse_key(act, batch.watcher, batch.key, grace_ms)
    if _hold_of(act, batch) is None:
        return False
    capacity = watcher.options.key_capacity
    return capacity is None or _started_cost(watcher, batch.key) <= capacity


# Waiting and coming back


def wake_group(watcher: WatcherState, key: str) -> None:
    """The first of a key's groups may be released again; the next when that is."""
    if key in watcher.keys and watcher.keys[key].aside:
        join_groups(watcher, watcher.keys[key].aside.pop(0))
        forget_empty(watcher, key)


def _wake_key(watcher: WatcherState, key: str) -> None:
    if key not in watcher.keys or not watcher.keys[key].waits:
        return
    watcher.keys[key].waits = False
    for priority in ALL:
        queue = watcher.queues.get((priority, key))
        if queue and (queue.arrived or queue.returned):
            watcher.rings[priority].join(key)
            watcher.keys[key].urgent_first |= priority in URGENT
    wake_group(watcher, key)


def let_backfills_go(watcher: WatcherState, key: str) -> None:
    """Urgent operations of a key that was at its cap have a batch now."""
    if key in watcher.keys and watcher.keys[key].urgent_first:
        watcher.keys[key].urgent_first = False
        queue = watcher.queues.get((Priority.backfill, key))
        if queue and (queue.arrived or queue.returned):
            watcher.rings[Priority.backfill].join(key)
        forget_empty(watcher, key)


def let_key_go(act: Act, batch: Batch) -> None:
    """A batch leaves the ledger: its hold goes with it, unless its handler has started."""
    watcher = act.watcher(batch.watcher)
    if batch.key is None or batch.key not in watcher.keys:
        return
    state = watcher.keys[batch.key]
    freed = batch.id in state.flights
    state.flights.discard(batch.id)
    if batch.nonce is None and batch.id in state.holds:
        del state.holds[batch.id]
        freed = True
    if freed:
        _wake_key(watcher, batch.key)
    forget_empty(watcher, batch.key)


def lapse_keys(act: Act, grace_ms: int) -> None:
    """Keys of which something is over: holds go, and who waits comes back."""
    ends = act.state.key_ends
    due = sorted((at, name, key) for (name, key), at in ends.items() if at <= act.now)
    for _, name, key in due[:BROUGHT_BACK]:
        del ends[name, key]
        lapse_key(act, name, key, grace_ms)
        note_end(act, name, key)
        _wake_key(act.watcher(name), key)
        forget_empty(act.watcher(name), key)
        reindex(act.state, name)
