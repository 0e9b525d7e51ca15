"""Where a batch's operations go, in the store in memory: ended, dead, waiting again or later."""

from __future__ import annotations

from bisect import insort
from collections import Counter

from .. import wire
from .base import Died, Settlement
from .counts import Dead
from .memory_holds import hold_open
from .memory_index import come_back, join_groups, reindex
from .memory_keys import let_key_go
from .memory_meters import count_outcomes, end_batch
from .memory_state import Act, Batch, Delayed, Waiting
from .meters import Place, place_of

BROUGHT_BACK = 100
"""How many that were delayed an act lets wait again."""


def close(act: Act, batch: Batch, ended: str, settlement: Settlement) -> list[Died]:
    """Take a batch out of the ledger; its operations go where the outcomes say, and some die.

    ``ended`` is the state in which it ends.
    """
    state, watcher = act.state, act.watcher(batch.watcher)
    if batch.nonce is not None:
        watcher.claimed -= 1
    else:
        watcher.open -= 1
        watcher.open_cost -= batch.cost
        del state.offers[batch.id]
        if batch.limited:
            hold_open(act, batch.costs, -1)
    del state.batches[batch.id]
    _, died = give_back(act, batch, settlement)
    let_key_go(act, batch)
    end_batch(act, batch, ended)
    reindex(state, batch.watcher)
    return died


def give_back(act: Act, batch: Batch, settlement: Settlement) -> tuple[list[Waiting], list[Died]]:
    """Operations of a batch go where the outcomes say; returns the undecided, and which died."""
    outcomes = settlement.outcomes
    if len(outcomes) == 1:
        outcomes *= len(batch.entries)
    undecided: list[Waiting] = []
    backing: list[Waiting] = []
    halving: list[Waiting] = []
    died: list[Died] = []
    tally: Counter[Place] = Counter()
    pause = 0
    for position, (one, given) in enumerate(zip(batch.entries, outcomes, strict=True)):
        delay = settlement.delays.get(position, 0)
        outcome = _final(act, batch.watcher, one, given)
        if outcome != "-":
            tally[place_of(outcome)] += 1
        if outcome == "-":
            undecided.append(one)
        elif outcome == "h":
            halving.append(one)
            pause = max(pause, delay)
        elif outcome == "g" and batch.trigger == "bisect":
            backing.append(one)
        else:
            reason = settlement.reasons.get(position, settlement.reason)
            if _settle_one(act, batch.watcher, one, outcome, reason, delay):
                died.append(Died(one.entry.id, one.entry.attempt))
    if halving:
        _halve(act, batch.watcher, halving, pause)
    keep_together(act, batch.watcher, backing)
    if batch.nonce is not None:
        cost = batch.cost - sum(one.entry.cost for one in undecided)
        count_outcomes(act, batch, tally, cost)
    return undecided, died


def _final(act: Act, name: str, one: Waiting, outcome: str) -> str:
    """An operation that has used up its tries is dead."""
    tries = act.watcher(name).options.max_attempts
    spent = outcome in "ra" and tries and one.entry.attempt >= tries
    return "x" if spent else outcome


def _settle_one(act: Act, name: str, one: Waiting, outcome: str, reason: str, delay: int) -> bool:
    """An operation goes where its outcome says; True when it died."""
    entry, again = one.entry, outcome in "ra"
    if again:
        data = wire.with_attempt(one.data, min(entry.attempt + 1, 65535))
        one = one.changed(wire.with_alone(data, True) if outcome == "a" else data)
    if again and delay > 0:
        _wait_later(act, name, [one], delay)
        return False
    if again or outcome == "g":
        _wait_again(act, name, [one])
        return False
    act.state.ids.discard(entry.id)
    if outcome == "x":
        _die(act, name, one, reason)
    else:
        act.state.done += 1
    return outcome == "x"


def _die(act: Act, name: str, one: Waiting, reason: str) -> None:
    """An operation becomes a dead letter; the oldest goes when there are too many."""
    state, watcher = act.state, act.watcher(name)
    state.died += 1
    watcher.dead.append(Dead(state.died, act.now, reason, one.data))
    if 0 < watcher.options.max_dead < len(watcher.dead):
        del watcher.dead[0]
        state.dropped += 1


# What stays together


def _halve(act: Act, name: str, ones: list[Waiting], delay: int) -> None:
    """The two halves of what failed together meet no others until they have not failed."""
    middle = (len(ones) + 1) // 2
    for half in (ones[:middle], ones[middle:]):
        keep_together(act, name, half, delay)
    act.state.halved += 1


def keep_together(act: Act, name: str, ones: list[Waiting], delay: int = 0) -> None:
    """Operations that may meet no others; a single one stays alone from now on."""
    if len(ones) == 1:
        ones = [ones[0].changed(wire.with_alone(ones[0].data, True))]
    if ones and delay > 0:
        _wait_later(act, name, ones, delay)
    elif ones:
        _wait_again(act, name, ones)


# Waiting again


def _wait_later(act: Act, name: str, ones: list[Waiting], delay: int) -> None:
    insort(act.state.later, Delayed(act.now + delay, name, ones), key=_due)


def _due(delayed: Delayed) -> tuple[int, int]:
    return delayed.due, delayed.ones[0].sequence


def _wait_again(act: Act, name: str, ones: list[Waiting]) -> None:
    watcher = act.watcher(name)
    if len(ones) == 1:
        come_back(watcher, ones[0])
        return
    join_groups(watcher, ones)
    watcher.waiting += len(ones)
    watcher.waiting_cost += sum(one.entry.cost for one in ones)


def bring_back(act: Act) -> None:
    """Operations whose delay is over wait again, and watchers that were parked are asked again."""
    later, parked = act.state.later, act.state.parked
    asked = sorted((at, name) for name, at in parked.items() if at <= act.now)[:BROUGHT_BACK]
    for _, name in asked:
        del parked[name]
    due = [delayed for delayed in later if delayed.due <= act.now][:BROUGHT_BACK]
    del later[: len(due)]
    for delayed in due:
        _wait_again(act, delayed.watcher, delayed.ones)
    for name in {delayed.watcher for delayed in due} | {name for _, name in asked}:
        reindex(act.state, name)


def next_due(act: Act) -> int:
    """How long until a delay is over, or a hold of a key; -1 when there is none."""
    state = act.state
    due = [*state.parked.values(), *state.key_ends.values(), *(one.due for one in state.later[:1])]
    return max(1, min(due) - act.now) if due else -1
