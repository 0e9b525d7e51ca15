"""Fleets that have nothing in common but a lease manager, on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from by_hand import ByHand
from celery_batcher import Batch, RedisLeaseManager, SharedResource
from eventually import eventually

WINDOW, CAPACITY, COST = 0.5, 100, 5


def fleet(url: str, unique: str, prefix: str, nth: int) -> ByHand:
    """A fleet with a store of its own."""
    leases = RedisLeaseManager(url, name=unique, lease_time=1.5, prefix=f"{prefix}leases:")
    resource = SharedResource(
        CAPACITY, factor=10, lease_manager=leases, max_interval=0.1, window=WINDOW
    )
    return ByHand(
        url, f"{unique}{nth}", f"{prefix}{nth}:", limiter=resource, start_grace=0.05,
        flush_interval=0.05, flush_mode="turn",
    )  # fmt: skip


def test_g3_fleets_with_stores_of_their_own_never_exceed_what_they_share(
    redis_url: str, unique: str, key_prefix: str
) -> None:
    starts: list[tuple[float, int, int]] = []
    stop = threading.Event()

    def starting(nth: int) -> Callable[[Batch], None]:
        return lambda batch: starts.append((time.monotonic(), nth, len(batch) * COST))

    def work(one: ByHand) -> None:
        while not stop.is_set():
            for batch in one.delivered():
                one.run(batch)

    def started(nth: int) -> int:
        return sum(cost for _, by, cost in starts if by == nth)

    with ExitStack() as stack:
        fleets = [
            stack.enter_context(closing(fleet(redis_url, unique, key_prefix, nth)))
            for nth in range(3)
        ]
        workers = [threading.Thread(target=work, args=(one,)) for one in fleets]
        stack.callback(lambda: [one.join() for one in workers])
        stack.callback(stop.set)
        for nth, one in enumerate(fleets):
            one.handlers["work"] = starting(nth)
            one.watcher(max_batch_size=4).enqueue_many(range(2000), cost=COST)
        for worker in workers:
            worker.start()
        for one in fleets[:2]:
            one.batcher.start()
        eventually(lambda: min(started(0), started(1)) > 2 * CAPACITY)
        fleets[2].batcher.start()  # a newcomer
        eventually(lambda: started(2) > CAPACITY)
        fleets[0].batcher.stop()  # its leases end
        eventually(lambda: started(2) > 3 * CAPACITY)

    for first, _, _ in starts:
        inside = sum(cost for at, _, cost in starts if first <= at < first + WINDOW)
        assert inside <= CAPACITY
