"""What the scripts `explain` and `seek` answer, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .counts import WatcherCounts
from .options import Limit
from .outlook import BatcherShare, Found, KeyOutlook, LimitOutlook, Outlook, Sought


def outlook(answer: Sequence[Any], row: WatcherCounts) -> Outlook:
    """The answer of ``explain``; the watcher's row is read as in `Store.counts`."""
    numbers, _, head, limits, batchers, key = answer
    now, paused, closed, guard, turn, draining, *rest = map(int, numbers)
    admitted, opened, running, buffered, buffered_cost, due, last_due, *rest = rest
    sharing, most, open_cost, keys_due, *waiting = rest
    return Outlook(
        now_ms=now,
        paused_ms=paused,
        closed_ms=closed,
        guard_ms=guard,
        turn_ms=turn,
        draining=bool(draining),
        admitted=admitted,
        open_batches=opened,
        running_batches=running,
        buffered=buffered,
        buffered_cost=buffered_cost,
        due_ms=due,
        last_due_ms=last_due,
        sharing=sharing,
        watcher=row,
        max_concurrent_batches=most,
        open_cost=open_cost,
        by_priority=tuple(waiting),
        head=head,
        limits=tuple(_limit(one) for one in limits),
        batchers=tuple(sorted((_share(one) for one in batchers), key=lambda one: one.name)),
        keys_due_ms=keys_due,
        key=_key(key) if key else None,
    )


def _limit(row: Sequence[bytes]) -> LimitOutlook:
    dimension, capacity, window, usable, started, unclaimed, debt = map(int, row[:7])
    limit = Limit(dimension, capacity, window)
    return LimitOutlook(limit, usable, started, unclaimed, debt, float(row[7]), int(row[8]))


def _key(row: Sequence[bytes]) -> KeyOutlook:
    capacity, *rest = map(int, row)
    return KeyOutlook(None if capacity < 0 else capacity, *rest)


def _share(row: Sequence[Any]) -> BatcherShare:
    name, weight, in_need, unclaimed, first = row
    costs = (tuple(int(float(one)) for one in text.split()) for text in (unclaimed, first))
    return BatcherShare(name.decode(), weight, bool(in_need), *costs)


def sought(answer: Sequence[Any]) -> Sought:
    """The answer of ``seek``."""
    looked, cursor, *found = answer
    if not found:
        return Sought(looked, cursor.decode("latin-1"))  # it may have a key that is no UTF-8
    state, watcher, entry, ahead, ahead_cost, batch, ms, reason = found
    return Sought(
        looked,
        found=Found(
            state.decode(),
            watcher.decode(),
            entry,
            int(ahead),
            int(ahead_cost),
            batch.decode(),
            int(ms),
            reason.decode(errors="replace"),
        ),
    )
