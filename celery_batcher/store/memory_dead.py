"""Dead letters of the store in memory."""

from __future__ import annotations

from collections.abc import Sequence

from .. import wire
from .counts import Dead
from .memory_index import arrive, reindex
from .memory_state import Act, WatcherState
from .meters import Place


def redrive(act: Act, name: str, numbers: Sequence[int]) -> int:
    state, watcher = act.state, act.watcher(name)
    redriven = []
    for letter in _letters(watcher, numbers):
        data = wire.with_alone(wire.with_attempt(letter.entry, 1), False)
        entry = wire.decode_entry(data)[0]
        if entry.registered and entry.id in state.ids:
            continue
        arrive(state, watcher, data, entry)
        redriven.append(letter.number)
        state.meters[name][Place.REDRIVEN] += 1
    reindex(state, name)
    return purge(act, name, redriven)


def purge(act: Act, name: str, numbers: Sequence[int]) -> int:
    watcher = act.watcher(name)
    letters = _letters(watcher, numbers)
    for letter in letters:
        watcher.dead.remove(letter)
    return len(letters)


def retire(act: Act, before_ms: int, most: int) -> int:
    retired = 0
    for watcher in act.state.watchers.values():
        old = sum(1 for letter in watcher.dead if letter.at_ms < before_ms)
        del watcher.dead[: min(old, most - retired)]
        retired += min(old, most - retired)
    return retired


def _letters(watcher: WatcherState, numbers: Sequence[int]) -> list[Dead]:
    by_number = {letter.number: letter for letter in watcher.dead}
    return [by_number[number] for number in dict.fromkeys(numbers) if number in by_number]
