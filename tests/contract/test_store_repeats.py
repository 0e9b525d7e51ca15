"""Every act may run twice: a lost reply is not a lost effect, and drivers send again.

Each act is called twice with the same arguments in a store where it does something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from builders import Bench, op
from celery_batcher.store.backfills import Chunk
from celery_batcher.store.base import Admission, Arrival, Settlement
from celery_batcher.store.options import WatcherOptions

Act = Callable[[Bench], Any]


def busy(bench: Bench) -> Bench:
    """A store in which every act has something to do; batches are named after their state."""
    bench.begin(WatcherOptions("w", max_batch_size=2), capacity=100, flush_ms=1000)
    for at in range(8):
        bench.put(op(f"{at}a", registered=True), op(f"{at}b", key="k"), id=f"staged{at}")
    bench.put(b"", id="bad")
    for name in ("done", "late", "running", "dead"):
        bench.release(name)
        bench.claim(name, ms=100 if name == "late" else 60_000)
    bench.release("ours")
    bench.claim("ours", nonce="me/1")
    bench.settle("done")
    bench.settle("dead", "x", reason="why")
    bench.store.expire(bench.token, bench.limits, "seen", 1)
    bench.clock.advance(1)
    bench.release("old")
    bench.store.take_backfill("running", "w", "t", 60_000, "me")
    bench.store.admit([Admission("booked", "w", 2, 2), Admission("lost", "w", 1, 1)], 100)
    return bench


SAME_ANSWER: dict[str, Act] = {
    "configure": lambda b: b.store.configure(b.limits, [WatcherOptions("w", max_batch_size=9)]),
    "admit": lambda b: b.store.admit([Admission("m", "w", 2, 3), Admission("n", "v", 1, 1)], 99),
    "repeat": lambda b: b.store.repeat("booked"),
    "take_backfill": lambda b: b.store.take_backfill("f", "w", "t", 1000, "me", again=True),
    "fill": lambda b: b.store.fill("running", "t", 1000, "w", Chunk(1, op("new"), 1, 1), 99),
    "leave_backfill, another's": lambda b: b.store.leave_backfill("running", "u", done=True),
    "reset_backfill": lambda b: b.store.reset_backfill("idle"),
    "want": lambda b: b.store.want(9000),
    "take_turn, one's own": lambda b: b.store.take_turn(b.token, 5000),
    "take_turn, another's": lambda b: b.store.take_turn("other", 5000),
    "keep the turn": lambda b: b.store.take_turn(b.token, 5000, keep=True),
    "forget": lambda b: b.store.forget(["staged0", "unknown"]),
    "idle, with a message expected": lambda b: b.store.idle(["w"]),
    "idle": lambda b: b.store.idle(["none"]),
    "release, refused": lambda b: (
        b.store.pause(9000),
        b.store.release(b.token, "new", b.limits, (3, 9)),
    )[1],
    "meters": lambda b: b.store.meters(),
    "recent": lambda b: b.store.recent(9),
    "release": lambda b: b.store.release(b.token, "new", b.limits),
    "published": lambda b: b.store.published(["old", "unknown"]),
    "claim": lambda b: b.store.claim("old", "n", b.limits, 1000),
    "claim, taken": lambda b: b.store.claim("running", "other", b.limits, 1000),
    "claim, gone": lambda b: b.store.claim("done", "n", b.limits, 1000),
    "renew": lambda b: b.store.renew("running", "n", b.limits, "r"),
    "settle": lambda b: b.store.settle("running", "n", Settlement("d", forget=["0a"])),
    "settle, again": lambda b: b.store.settle("running", "n", Settlement("r", "why")),
    "settle, mixed": lambda b: b.store.settle("running", "n", Settlement("xg", "why")),
    "settle, later": lambda b: b.store.settle("running", "n", Settlement("r", delays={0: 500})),
    "settle, late": lambda b: b.store.settle("late", "n", Settlement("d")),
    "commit, late": lambda b: b.store.commit("late", "n", 1, Settlement("d")),
    "abandon, another's": lambda b: b.store.abandon("running", "me", "lost"),
    "commit": lambda b: b.store.commit("running", "n", 1, Settlement("d-")),
    "commit, all": lambda b: b.store.commit("running", "n", 1, Settlement("r", "why")),
    "set_asides": lambda b: b.store.set_asides(9),
    "dead": lambda b: b.store.dead("w", 9),
    "dead, the next": lambda b: b.store.dead("w", 9, 1),
    "audit": lambda b: b.store.audit("step", 1000),
    "throttle": lambda b: b.store.throttle(60_000, 0.25),
    "counts": lambda b: b.store.counts(),
    "peek": lambda b: b.store.peek("w", 9),
    "leases": lambda b: b.store.leases(),
    "discard": lambda b: b.store.discard("step", "waiting", "w", 3),
    "discard, delayed": lambda b: b.store.discard("step", "delayed", "w", 3),
}
SAME_STATE: dict[str, Act] = {
    "withdraw": lambda b: b.store.withdraw(["lost", "unknown"]),
    "leave_turn": lambda b: b.store.leave_turn(b.token),
    "stage": lambda b: b.store.stage(
        b.token,
        [Arrival("booked", "w", op("x", registered=True) + op("y")), Arrival("z", "w", b"")],
        "",
    ),
    "offer": lambda b: b.store.offer(b.token, 9),
    "expire": lambda b: b.store.expire(b.token, b.limits, "late", 9),
    "abandon": lambda b: b.store.abandon("ours", "me", "lost"),
    "abandon, no attempt counted": lambda b: b.store.abandon("ours", "me", "", attempt=False),
    "probe": lambda b: (b.store.settle("running", "n", Settlement()), b.store.probe(b.token, 0, 9)),
    "redrive": lambda b: b.store.redrive("w", [1, 99]),
    "purge": lambda b: b.store.purge("w", [1, 99]),
    "retire": lambda b: b.store.retire(2**50, 9),
    "pause": lambda b: b.store.pause(1000),
    "drain": lambda b: b.store.drain(),
    "pause until resumed": lambda b: b.store.pause(-1),
    "shut": lambda b: b.store.shut(1000),
}


@pytest.mark.parametrize("name", SAME_ANSWER)
def test_an_act_that_runs_twice_answers_the_same_and_changes_nothing(
    bench: Bench, name: str
) -> None:
    act = SAME_ANSWER[name]
    busy(bench)
    answer, state, counts = act(bench), bench.snapshot(), bench.store.counts()

    assert act(bench) == answer

    assert bench.store.counts() == counts
    assert bench.snapshot() == state


@pytest.mark.parametrize("name", SAME_STATE)
def test_an_act_that_answers_what_it_changed_changes_nothing_the_second_time(
    bench: Bench, name: str
) -> None:
    act = SAME_STATE[name]
    busy(bench)
    before = bench.snapshot()
    act(bench)
    state, counts = bench.snapshot(), bench.store.counts()
    assert state != before

    act(bench)

    assert bench.store.counts() == counts
    assert bench.snapshot() == state
