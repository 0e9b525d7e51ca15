"""The audit of a batcher: when it walks, what it tells, and that it delays nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from celery_batcher import Batcher, StoreUnavailableError
from celery_batcher.store.counts import AuditStep, Difference
from celery_batcher.turn import one_flush
from in_memory import InMemory

Heard = list[tuple[str, int, str, Any]]


def listening(batcher: Batcher) -> Heard:
    """What listeners hear of the audit."""
    heard: Heard = []

    def hear(event: str, val: int, msg: str, metadata: Any) -> None:
        if event.startswith("audit-"):
            heard.append((event, val, msg, metadata))

    batcher.add_listener(hear)
    return heard


def steps(batcher: Batcher, monkeypatch: pytest.MonkeyPatch, *answers: AuditStep) -> list[float]:
    """Let the store answer this, and the last for ever; the times of the steps."""
    left, taken = list(answers), []

    def audit(id: str, every_ms: int) -> AuditStep:
        taken.append(batcher.clock.monotonic())
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr(batcher.store, "audit", audit)
    return taken


def drifted(batcher: Batcher, by: int) -> None:
    """Let the store count wrongly what waits."""
    batcher.store._state.watcher("write").waiting += by  # type: ignore[attr-defined]


def test_a_wrong_counter_is_told_with_both_numbers_and_repaired_the_third_time(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher(flush_mode="tick", audit_interval=1.0)
    batcher.watcher(name="write")(lambda batch: None)
    heard = listening(batcher)
    batcher.tick()
    drifted(batcher, 3)
    site.clock.advance(1.0)

    with caplog.at_level(logging.WARNING, "celery_batcher"):
        site.tick(batcher, 4, every=1.0)

    said = "waiting of write was counted as 3, but the data say 0"
    fails = [
        ("audit-fail", 3, said, Difference("waiting", "write", 3, 0, repaired=False)),
        ("audit-fail", 3, said, Difference("waiting", "write", 3, 0, repaired=False)),
        ("audit-fail", 3, f"{said}: it is that now", Difference("waiting", "write", 3, 0, True)),
    ]
    assert heard[1:-1] == fails
    assert [heard[0][0], heard[-1][0]] == ["audit-pass", "audit-pass"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "ERROR"]
    assert batcher.status().repaired == 1
    assert batcher.operations_in_buffer() == 0


def test_a_part_that_was_left_out_is_told(
    site: InMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher()
    heard = listening(batcher)
    steps(batcher, monkeypatch, AuditStep(1000, True, 9, 0, skipped=("too many batches",)))

    batcher.audit()

    assert heard == [
        ("audit-skip", 0, "too many batches", None),
        ("audit-pass", 9, "", None),
    ]
    assert "too many batches" in caplog.text


def test_a_store_that_refuses_a_step_breaks_no_turn_off(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher(audit_interval=1.0)
    heard = listening(batcher)
    asked: list[str] = []

    def refuse(id: str, every_ms: int) -> AuditStep:
        asked.append(id)
        raise StoreUnavailableError("its memory is full")

    monkeypatch.setattr(batcher.store, "audit", refuse)
    batcher.store.want(900)

    batcher._turn._run()

    assert heard == [("audit-skip", 0, "its memory is full", None)]
    assert len(asked) == 1


def test_a_turn_walks_some_steps_at_a_time_and_begins_a_pass_every_interval(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher(audit_interval=1.0)
    go_on = [AuditStep(0)] * 20
    taken = steps(batcher, monkeypatch, *go_on, AuditStep(1000, over=True))
    batcher.store.want(2000)

    batcher._turn._run()

    at = sorted(set(taken))
    assert [taken.count(when) for when in at[:3]] == [
        16,
        5,
        1,
    ]  # the audit's own step, and the turn's
    assert at[1] - at[0] == pytest.approx(0.1, abs=0.02)
    assert all(later - at[1] >= 0.99 for later in at[2:])


def test_no_step_begins_when_a_flush_is_due(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher()
    taken = steps(batcher, monkeypatch, AuditStep(0))

    batcher._duties.auditor.walk(until=site.clock.monotonic())
    assert taken == []

    batcher._duties.auditor.walk(until=site.clock.monotonic() + 0.001)
    assert taken != []


def test_a_walk_ends_after_some_milliseconds_however_many_steps_are_left(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher()
    times: list[float] = []

    def audit(id: str, every_ms: int) -> AuditStep:
        times.append(site.clock.monotonic())
        site.clock.advance(0.002)
        return AuditStep(0)

    monkeypatch.setattr(batcher.store, "audit", audit)

    batcher._duties.auditor.walk()

    assert times == [0.0, 0.002]


def test_without_a_turn_the_beats_of_the_audit_walk(site: InMemory) -> None:
    batcher = site.batcher(audit_interval=1.0)
    heard = listening(batcher)

    for _ in range(2):
        site.app.tasks["celery_batcher.audit"].apply((batcher.name,), throw=True)
        site.clock.advance(1.0)

    assert [event for event, *_ in heard] == ["audit-pass", "audit-pass"]


def test_in_tick_mode_each_tick_goes_on_with_the_walk(
    site: InMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = site.batcher(flush_mode="tick")
    taken = steps(batcher, monkeypatch, *[AuditStep(0)] * 20, AuditStep(9000, over=True))

    for _ in range(3):
        one_flush(batcher._duties)
        site.clock.advance(1.0)

    assert len(taken) == 21
