"""The counts of the store in memory."""

from __future__ import annotations

from .. import wire
from .counts import Counts, LimitCounts, WatcherCounts
from .memory_holds import lapse, limits_now
from .memory_index import first_aside, first_ready
from .memory_state import Act


def counts(act: Act) -> Counts:
    state, resource, now = act.state, act.resource, act.now
    limits = limits_now(act)
    lapse(act, limits)
    batches = state.batches.values()
    open = [batch for batch in batches if batch.nonce is None]
    running = [batch for batch in batches if batch.nonce is not None]
    delayed = [one for delayed in state.later for one in delayed.ones]
    dead = [dead for one in state.watchers.values() for dead in one.dead]
    return Counts(
        now_ms=now,
        admitted=sum(one.operations for one, _ in state.admitted.values()),
        admitted_cost=sum(one.cost for one, _ in state.admitted.values()),
        admitted_messages=len(state.admitted),
        waiting=sum(one.waiting for one in state.watchers.values()),
        waiting_cost=sum(one.waiting_cost for one in state.watchers.values()),
        delayed=len(delayed),
        delayed_cost=sum(one.entry.cost for one in delayed),
        open=sum(len(batch.entries) for batch in open),
        open_cost=sum(batch.cost for batch in open),
        open_batches=len(open),
        running=sum(len(batch.entries) for batch in running),
        running_cost=sum(batch.cost for batch in running),
        running_batches=len(running),
        done=state.done,
        dead=len(dead),
        dead_cost=sum(wire.decode_entry(one.entry)[0].cost for one in dead),
        dropped=state.dropped,
        duplicates=state.duplicates,
        expired_batches=state.expired,
        halved_batches=state.halved,
        late_batches=state.late,
        repaired=state.audit.repaired,
        set_aside=len(state.aside),
        paused_ms=-1 if state.paused_until == -1 else max(0, state.paused_until - now),
        draining=state.draining,
        turn_ms=max(0, state.turn_until - now),
        limits=tuple(
            LimitCounts(
                one.state.limit,
                one.capacity,
                one.state.held + resource.open[one.dimension],
                one.state.debt,
            )
            for one in limits
        ),
        last_flush=state.last_flush,
        watchers=tuple(_row(act, name) for name in sorted(state.watchers)),
    )


def _row(act: Act, name: str) -> WatcherCounts:
    watcher = act.watcher(name)
    head = first_ready(watcher) or first_aside(watcher)
    return WatcherCounts(
        name=name,
        waiting=watcher.waiting,
        waiting_cost=watcher.waiting_cost,
        delayed=sum(len(one.ones) for one in act.state.later if one.watcher == name),
        open_batches=watcher.open,
        running_batches=watcher.claimed,
        dead=len(watcher.dead),
        on_probe=watcher.probe,
        next_age_ms=max(0, act.now - head.entry.enqueued_ms) if head else None,
    )
