"""What is counted for ever, in the store in memory."""

from __future__ import annotations

from collections import Counter

from .base import Refused
from .memory_state import Act, Batch
from .meters import (
    AGES_MS,
    DURATIONS_MS,
    ENDS,
    OUTCOMES,
    PLACES,
    RECENT,
    SIZES,
    BatchRecord,
    FlushRecord,
    Place,
    Readings,
    newest,
)


def count_release(act: Act, batch: Batch) -> None:
    age = max(0, act.now - batch.oldest)
    act.state.meters[batch.watcher].update(
        {
            Place[batch.trigger.upper()]: 1,
            Place.COST: batch.cost,
            SIZES.place(len(batch.entries)): 1,
            SIZES.sum: len(batch.entries),
            AGES_MS.place(age): 1,
            AGES_MS.sum: age,
        }
    )


def end_flush(act: Act, id: str, so_far: tuple[int, int], refused: Refused) -> Refused:
    """A flush ends without a further batch. A repeat has the same id, and is not counted."""
    state = act.state
    if state.flush_id != id:
        state.flush_id = id
        state.flushes[refused.reason] += 1
        state.last_flush = FlushRecord(act.now, *so_far, refused.reason)
    return refused


def count_outcomes(act: Act, batch: Batch, outcomes: Counter[Place], cost: int) -> None:
    """Operations of a claimed batch have an outcome."""
    act.state.meters[batch.watcher].update(outcomes)
    batch.decided.update(outcomes)
    batch.decided_cost += cost


def end_batch(act: Act, batch: Batch, ended: str) -> None:
    """A batch has left the ledger, its outcomes are counted."""
    meters = act.state.meters[batch.watcher]
    if batch.nonce is None:
        meters[Place.RECALLED] += 1
    else:
        took = max(0, act.now - batch.started)
        meters.update({DURATIONS_MS.place(took): 1, DURATIONS_MS.sum: took})
        if ended in ENDS:
            meters[ENDS[ended]] += 1
    left = len(batch.entries) if batch.nonce is None else 0
    cost = batch.cost if batch.nonce is None else 0
    act.state.recent.append(_record(batch, ended, act.now, left, cost))


def _record(batch: Batch, state: str, ended: int | None, left: int, cost_left: int) -> BatchRecord:
    return BatchRecord(
        id=batch.id,
        watcher=batch.watcher,
        operations=left + batch.decided.total(),
        cost=cost_left + batch.decided_cost,
        trigger=batch.trigger,
        state=state,
        oldest_ms=batch.oldest,
        released_ms=batch.released,
        started_ms=None if batch.nonce is None else batch.started,
        ended_ms=ended,
        outcomes=tuple(batch.decided[place] for place in OUTCOMES),
    )


def recent(act: Act, most: int) -> list[BatchRecord]:
    live = [
        _record(
            one, "released" if one.nonce is None else "running", None, len(one.entries), one.cost
        )
        for one in act.state.batches.values()
    ]
    return newest([*act.state.recent, *live], min(most, RECENT))


def readings(act: Act) -> Readings:
    return Readings(
        dict(act.state.flushes),
        {
            name: tuple(act.state.meters[name][place] for place in range(PLACES))
            for name in sorted(act.state.watchers)
        },
    )
