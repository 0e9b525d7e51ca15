"""Back-fills of the store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from .. import wire
from ..costs import MAX_COST
from .backfills import BackfillState, Chunk
from .memory_counts import counts
from .memory_index import reindex
from .memory_intake import take
from .memory_state import Act, Backfill


def backfills(act: Act, names: Sequence[str]) -> list[BackfillState]:
    known = act.state.backfills
    return [
        replace(known[name].state, now_ms=act.now)
        if name in known
        else BackfillState(name, act.now)
        for name in names or sorted(known)
    ]


def take_backfill(  # noqa: PLR0917 - as the store has it
    act: Act, name: str, watcher: str, token: str, ms: int, owner: str, again: bool, keep: bool
) -> bool:
    one = act.state.backfills.get(name) or Backfill(BackfillState(name, act.now))
    state = replace(one.state, now_ms=act.now)
    if not one.token or one.token != token:
        if keep or state.runs or (state.done and not again):
            return False
        if state.done or not state.run:
            state = BackfillState(
                name, act.now, run=state.run + 1, began_ms=act.now, paused=state.paused
            )
        state = replace(
            state,
            watcher=watcher,
            owner=owner,
            since_ms=act.now,
            since_rows=state.rows,
            error="",
        )
    one.token, one.state = token, replace(state, until_ms=act.now + ms)
    act.state.backfills[name] = one
    return True


def fill(  # noqa: PLR0917 - as the store has it
    act: Act, name: str, token: str, ms: int, watcher: str, chunk: Chunk, most: int
) -> str:
    one = act.state.backfills.get(name)
    if one is None or not token or one.token != token:
        return "lost"
    one.state = replace(one.state, until_ms=act.now + ms)
    if one.state.chunk >= chunk.number:
        return "taken"
    refusal = _refusal(act, one.state, chunk, most)
    if refusal:
        return refusal
    entries = wire.decode_entries(chunk.entries) if chunk.entries else []  # eager mode has none
    act.state.duplicates += take(act, watcher, chunk.entries, entries)
    reindex(act.state, watcher)
    one.state = replace(
        one.state,
        chunk=chunk.number,
        rows=one.state.rows + chunk.rows,
        checkpoint=chunk.checkpoint,
        skip=chunk.skip,
        total=chunk.total,
        fed_ms=act.now,
    )
    return "taken"


def _refusal(act: Act, state: BackfillState, chunk: Chunk, most: int) -> str:
    """Why rows are not taken now; "" when they are."""
    paused = act.state.paused_until
    if state.paused:
        return "held"
    if act.state.draining:
        return "draining"
    if paused == -1 or paused > act.now:
        return "paused"
    now = counts(act)
    full = now.buffered + chunk.rows > most or chunk.cost > MAX_COST - now.unsettled_cost
    return "full" if full else ""


def leave_backfill(act: Act, name: str, token: str, done: bool, error: str) -> bool:
    one = act.state.backfills.get(name)
    if one is None or not token or one.token != token:
        return False
    one.token, one.state = "", replace(one.state, owner="", until_ms=0)
    if done:
        one.state = replace(one.state, done=True, ended_ms=act.now)
    if error:
        one.state = replace(one.state, error=error)
    return True


def hold_backfill(act: Act, name: str, watcher: str, hold: bool) -> bool:
    one = act.state.backfills.get(name)
    if (one is not None and one.state.paused) == hold:
        return False
    if one is None:
        one = act.state.backfills[name] = Backfill(BackfillState(name, act.now))
    state = replace(one.state, watcher=watcher) if hold else one.state
    one.state = replace(state, paused=hold)
    return True


def reset_backfill(act: Act, name: str) -> bool:
    one = act.state.backfills.get(name)
    if one is not None and one.state.until_ms > act.now:
        return False
    act.state.backfills.pop(name, None)
    return True


class MemoryBackfills:
    """What the store in memory does for back-fills."""

    def _act(self) -> AbstractContextManager[Act]:
        raise NotImplementedError

    def backfills(self, *names: str) -> list[BackfillState]:
        with self._act() as act:
            return backfills(act, names)

    def take_backfill(
        self,
        name: str,
        watcher: str,
        token: str,
        ms: int,
        owner: str,
        *,
        again: bool = False,
        keep: bool = False,
    ) -> bool:
        with self._act() as act:
            return take_backfill(act, name, watcher, token, ms, owner, again, keep)

    def fill(self, name: str, token: str, ms: int, watcher: str, chunk: Chunk, most: int) -> str:
        with self._act() as act:
            return fill(act, name, token, ms, watcher, chunk, most)

    def leave_backfill(self, name: str, token: str, *, done: bool = False, error: str = "") -> bool:
        with self._act() as act:
            return leave_backfill(act, name, token, done, error)

    def hold_backfill(self, name: str, watcher: str, *, hold: bool) -> bool:
        with self._act() as act:
            return hold_backfill(act, name, watcher, hold)

    def reset_backfill(self, name: str) -> bool:
        with self._act() as act:
            return reset_backfill(act, name)
