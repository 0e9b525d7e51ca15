"""How operations get into the store in memory: admitted, staged, or void."""

from __future__ import annotations

from collections.abc import Sequence

from .. import wire
from ..costs import MAX_COST
from .base import Admission, Admitted, Arrival, Staged
from .counts import SetAside
from .memory_counts import counts
from .memory_index import arrive, reindex
from .memory_state import Act
from .meters import Place

DAY_MS = 86_400_000


def admit(act: Act, admissions: Sequence[Admission], buffer_size: int) -> Admitted:
    state = act.state
    admitted, cost, buffered = 0, counts(act).unsettled_cost, _buffered(act)
    for one in admissions:
        if one.id not in state.admitted:
            if state.draining:
                return Admitted(admitted, buffered, draining=True)
            if cost + one.cost > MAX_COST:
                return Admitted(admitted, buffered, too_dear=True)
            if buffered + one.operations > buffer_size:
                break
            cost, buffered = cost + one.cost, buffered + one.operations
            state.admitted[one.id] = one, act.now
            state.lanes.add(one.watcher)
            act.watcher(one.watcher).admitted += 1
        admitted += 1
    return Admitted(admitted, buffered)


def _buffered(act: Act) -> int:
    state = act.state
    admitted = sum(one.operations for one, _ in state.admitted.values())
    waiting = sum(watcher.waiting for watcher in state.watchers.values())
    return admitted + waiting + sum(len(delayed.ones) for delayed in state.later)


def discharge(act: Act, id: str) -> int:
    """Take a message out of the books; the number taken."""
    admission = act.state.admitted.pop(id, None)
    if admission is None:
        return 0
    act.watcher(admission[0].watcher).admitted -= 1
    return 1


def repeat(act: Act, id: str) -> bool:
    state = act.state
    for old in [old for old, at in state.repeated.items() if at <= act.now - DAY_MS]:
        del state.repeated[old]
    if id not in state.admitted:
        return False
    state.repeated[id] = act.now
    return True


def stage(act: Act, token: str, arrivals: Sequence[Arrival]) -> Staged:
    state = act.state
    if state.turn != token:
        return Staged(lost=True)
    staged = duplicates = aside = 0
    for one in arrivals:
        repeated = one.id in state.repeated and one.id not in state.admitted
        if one.id in state.noted or repeated:
            continue
        state.noted[one.id] = act.now
        entries, fault = _entries_of(act, one)
        if fault:
            state.aside.append(SetAside(act.now, one.watcher, fault, one.entries))
            aside += 1
        dropped = take(act, one.watcher, one.entries, entries)
        staged += len(entries) - dropped
        duplicates += dropped
        discharge(act, one.id)
        reindex(state, one.watcher)
    state.duplicates += duplicates
    return Staged(staged, duplicates, aside)


def take(act: Act, watcher: str, data: bytes, entries: Sequence[wire.Entry]) -> int:
    """Entries of a message wait, but for duplicates; returns how many these are."""
    state, dropped = act.state, 0
    for entry, bytes_ in zip(entries, wire.split_entries(data), strict=False):
        if entry.registered and not _register(act, entry):
            dropped += 1
        else:
            arrive(state, act.watcher(watcher), bytes_, entry)
            state.meters[watcher][Place.ENQUEUED] += 1
    return dropped


def _register(act: Act, entry: wire.Entry) -> bool:
    """Whether no other with this id lives, nor came so lately that this is a duplicate."""
    state, ms = act.state, entry.dedupe_ms
    if entry.id in state.ids or (ms is not None and state.deduped.get(entry.id, 0) > act.now):
        return False
    if ms:
        state.deduped[entry.id] = act.now + ms
    return True


def _entries_of(act: Act, one: Arrival) -> tuple[list[wire.Entry], str]:
    """The entries of a message, or none and why it is set aside."""
    if one.fault:
        return [], one.fault
    try:
        cost = sum(piece.cost for piece in wire.split_pieces(one.entries))
    except wire.MalformedError as exc:
        return [], str(exc)
    known = act.state.admitted.get(one.id)
    others = counts(act).unsettled_cost - (known[0].cost if known else 0)
    if others + cost > MAX_COST:
        return [], "impossible cost"
    return wire.decode_entries(one.entries), ""


def forget(act: Act, ids: Sequence[str]) -> int:
    noted = act.state.noted
    for id in ids:
        noted.pop(id, None)
    for id in [id for id, at in noted.items() if at <= act.now - DAY_MS]:
        del noted[id]
    deduped = act.state.deduped
    for id in [id for id, until in deduped.items() if until <= act.now]:
        del deduped[id]
    return len(noted)


def idle(act: Act, watchers: Sequence[str]) -> int:
    unmarked = 0
    for name in watchers:
        watcher = act.watcher(name)
        watcher.empty_ms = act.now
        if not watcher.admitted:
            act.state.lanes.discard(name)
            unmarked += 1
    return unmarked


def void(act: Act, ms: int) -> int:
    state = act.state
    void = [
        id
        for id, (one, at) in state.admitted.items()
        if act.watcher(one.watcher).empty_ms - at > ms
    ]
    for id in void:
        state.repeated.pop(id, None)  # it was never staged: the next to arrive is the first
    return sum(discharge(act, id) for id in void)
