"""What signals, `batcher-*` events and log lines tell, where all listen and where nobody does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.utils.dispatch import Signal

from celery_batcher import (
    Batch,
    Batcher,
    BufferFullError,
    ProvisionedResource,
    Throttled,
    announcing,
    signals,
)
from celery_batcher.celery_events import EVENTS, EventSender, sending
from in_memory import InMemory

ALL = {name: one for name, one in vars(signals).items() if isinstance(one, Signal)}
Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def heard() -> Iterator[Told]:
    """All signals, as one receiver hears them."""
    heard: Told = []

    def hear(signal: Any, sender: Any, **arguments: Any) -> None:
        assert isinstance(sender, Batcher)
        heard.append((signal.name, arguments))

    for signal in ALL.values():
        signal.connect(hear)
    yield heard
    for signal in ALL.values():
        signal.disconnect(hear)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """All events that would be sent, in order."""
    sent: Told = []
    note = lambda sender, event, fields: sent.append((event, dict(fields)))  # noqa: E731
    monkeypatch.setattr(EventSender, "send_now", note)
    yield sent
    sending.finish()


def of(told: Told, name: str) -> list[dict[str, Any]]:
    return [arguments for one, arguments in told if one == name]


def fail_and_throttle(batch: Batch) -> None:
    """A handler that does what payloads say."""
    for op in batch:
        if op.payload == "fail":
            batch.fail(op, "secret reason")
        elif op.payload == "later":
            batch.retry(op)
        elif op.payload == "throttle":
            raise Throttled(retry_after=2.0)
        elif op.payload == "raise":
            raise ValueError("secret error")


def all_that_happens(site: InMemory, **options: Any) -> Batcher:
    """A batcher that was enqueued to, flushed, paused, resumed, throttled."""
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(100), **options)
    write = batcher.watcher(name="write", max_attempts=1)(fail_and_throttle)
    write.enqueue_many(["secret", "fail", "later"], cost=2)
    site.clock.advance(1.5)
    site.tick(batcher)
    write.enqueue("throttle", cost=3)
    site.tick(batcher)
    site.clock.advance(5)
    batcher.pause(0.25)
    batcher.pause(None)
    batcher.resume()
    batcher.resume()
    return batcher


def test_signals_tell_what_happens_with_the_arguments_they_promise(
    site: InMemory, heard: Told
) -> None:
    all_that_happens(site)

    for name, arguments in heard:
        assert set(arguments) == ALL[name].providing_args, name
    assert {name for name, _ in heard} == set(ALL) - {"backfill_progress"}
    assert of(heard, "operations_enqueued") == [
        {"watcher": "write", "operations": 3, "cost": 6},
        {"watcher": "write", "operations": 1, "cost": 3},
    ]
    first = of(heard, "batch_released")[0]
    id = first["batch_id"]
    size = {"batch_id": id, "watcher": "write", "operations": 3, "cost": 6}
    assert first == {**size, "trigger": "interval", "oldest_age": 1.5}
    assert of(heard, "batch_started")[0] == size
    assert of(heard, "batch_settled")[0] == {
        **size,
        "state": "done",
        "done": 1,
        "dead": 2,
        "retried": 0,
        "halved": 0,
        "given_back": 0,
        "runtime": 0.0,
        "error": None,
    }
    dead = of(heard, "operation_dead")
    assert [(one["batch_id"], one["attempt"]) for one in dead] == [(id, 1)] * 2
    assert dead[0]["reason"] == "secret reason"
    assert "the last" in dead[1]["reason"]
    (throttled,) = of(heard, "resource_throttled")
    assert (throttled["resource"], throttled["closed_for"]) == ("b", 2.0)
    settled = of(heard, "batch_settled")[1]
    assert (settled["state"], settled["given_back"]) == ("throttled", 1)
    assert isinstance(settled["error"], Throttled)
    assert of(heard, "batcher_paused") == [{"pause_time": 0.25}, {"pause_time": None}]
    assert len(of(heard, "batcher_resumed")) == 1


def test_an_operation_that_dies_in_a_commit_or_unread_is_told_once(
    site: InMemory, heard: Told
) -> None:
    batcher = site.batcher(flush_mode="tick")

    def handle(batch: Batch) -> None:
        batch.fail(batch[0], "no")
        batch.commit()

    write = batcher.watcher(name="write")(handle)
    write.enqueue("a", id="a")
    site.app.conf.accept_content = ["json", "pickle"]
    site.app.conf.batcher_serializer = "pickle"
    write.enqueue("b", id="b")
    site.app.conf.accept_content = ["json"]
    site.tick(batcher)

    dead = of(heard, "operation_dead")
    assert sorted(one["operation_id"] for one in dead) == ["a", "b"]
    assert "cannot be read" in next(one["reason"] for one in dead if one["operation_id"] == "b")
    (settled,) = of(heard, "batch_settled")
    assert (settled["operations"], settled["dead"], settled["done"]) == (1, 2, 0)


def test_what_failed_is_told_with_its_error_and_dies_after_the_last_attempt(
    site: InMemory, heard: Told
) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write", max_attempts=2)(fail_and_throttle)
    write.enqueue_many(["raise", "raise"])
    site.tick(batcher, 4)

    states = [
        (one["state"], one["halved"], one["retried"], one["dead"])
        for one in of(heard, "batch_settled")
    ]
    assert states[0] == ("failed", 2, 0, 0)
    assert sorted(states[1:]) == [("failed", 0, 0, 1)] * 2 + [("failed", 0, 1, 0)] * 2
    assert all(isinstance(one["error"], ValueError) for one in of(heard, "batch_settled"))
    assert [one["attempt"] for one in of(heard, "operation_dead")] == [2, 2]


def test_what_dies_with_its_worker_is_told_where_it_is_taken_back(
    site: InMemory, heard: Told
) -> None:
    batcher = site.batcher(flush_mode="tick", max_operation_time=1.0)
    write = batcher.watcher(name="write", max_attempts=1)(lambda batch: None)
    id = write.enqueue(1)
    batcher.tick()
    ((_, batch, _),) = site.tasks()
    assert batcher.store.claim(batch, "nonce", batcher.limits(), 2000).state == "claimed"
    site.tick(batcher, 30)

    (dead,) = of(heard, "operation_dead")
    assert (dead["operation_id"], dead["batch_id"], dead["attempt"]) == (id, batch, 1)


def test_only_what_was_enqueued_is_told(site: InMemory, heard: Told) -> None:
    batcher = site.batcher(buffer_size=7, error_on_full_buffer=True)
    write = batcher.watcher(name="write")(lambda batch: None)

    with pytest.raises(BufferFullError):
        write.enqueue_many(range(10), pack=2)
    with pytest.raises(BufferFullError):
        write.enqueue_many(range(10), pack=7)

    assert of(heard, "operations_enqueued") == [{"watcher": "write", "operations": 6, "cost": 6}]


def test_a_receiver_that_fails_is_logged_and_breaks_nothing(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        raise LookupError("receiver's own")

    for signal in ALL.values():
        signal.connect(fail)
    try:
        batcher = all_that_happens(site)
    finally:
        for signal in ALL.values():
            signal.disconnect(fail)

    assert (batcher.status().done, batcher.status().dead) == (1, 2)
    assert "receiver's own" in caplog.text


def test_costs_with_dimensions_are_told_by_dimension(
    site: InMemory, heard: Told, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = ProvisionedResource({"requests": 10, "tokens": 100})
    batcher = site.batcher(flush_mode="tick", rate_limiter=limiter)
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue(1, cost={"requests": 1, "tokens": 30})
    with caplog.at_level(logging.INFO, "celery_batcher"):
        site.tick(batcher)

    for name in ("batch_released", "batch_started", "batch_settled"):
        assert of(heard, name)[0]["cost"] == {"requests": 1, "tokens": 30}
    assert "cost 1 requests, 30 tokens, trigger" in caplog.text


# Celery events


def test_events_are_sent_only_where_they_are_asked_for(site: InMemory, sent: Told) -> None:
    all_that_happens(site)
    sending.finish()

    assert sent == []


@pytest.mark.parametrize("asked", ["setting", "option"])
def test_events_have_the_fields_they_promise_and_no_payload(
    site: InMemory, sent: Told, asked: str
) -> None:
    site.app.conf.batcher_send_events = asked == "setting"
    all_that_happens(site, **({"send_events": True} if asked == "option" else {}))
    sending.finish()

    assert {event for event, _ in sent} == set(EVENTS)
    for event, fields in sent:
        assert set(fields) == {"batcher", "timestamp", *EVENTS[event]}, event
        assert fields["batcher"] == "b"
        assert "secret" not in json.dumps(fields)
    (dead,) = of(sent, "batcher-dead")
    assert (dead["operations"], len(dead["operation_ids"])) == (2, 2)
    assert [one["error"] for one in of(sent, "batcher-settled")] == [None, "Throttled"]


def test_many_dead_operations_are_one_event(site: InMemory, sent: Told) -> None:
    batcher = site.batcher(flush_mode="tick", send_events=True)
    write = batcher.watcher(name="write")(fail_and_throttle)
    write.enqueue_many(["fail"] * 300)
    site.tick(batcher)
    sending.finish()

    (dead,) = of(sent, "batcher-dead")
    assert (dead["operations"], len(dead["operation_ids"])) == (300, 10)


def test_events_arrive_as_celerys_own_do(site: InMemory) -> None:
    batcher = site.batcher(send_events=True)
    got: list[dict[str, Any]] = []
    with site.app.connection_for_read() as connection:
        receiver = site.app.events.Receiver(connection, handlers={"*": got.append})
        with receiver.consumer_context() as (listening, _, _):
            batcher.pause(1.5)
            sending.finish()
            listening.drain_events(timeout=5)

    (event,) = got
    assert (event["type"], event["batcher"], event["pause_time"]) == ("batcher-paused", "b", 1.5)
    assert event["timestamp"] <= event["local_received"]
    assert event["hostname"]


def test_a_broker_that_is_away_costs_events_and_one_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("celery_batcher.celery_events.time.monotonic", lambda: now[0])
    app = Celery("away", broker="redis://127.0.0.1:1/0", set_as_current=False)
    app.conf.broker_connection_timeout = 0.1
    sender = EventSender(app)
    dispatched: list[str] = []

    class Dispatcher:
        def send(self, event: str, **_: Any) -> None:
            dispatched.append(event)

    for _ in range(3):
        sender.send_now("batcher-resumed", {"batcher": "b"})
    now[0] += 6
    sender.send_now("batcher-resumed", {"batcher": "b"})
    now[0] += 6
    sender._dispatcher = Dispatcher()
    sender.send_now("batcher-paused", {"batcher": "b"})

    first, last = (record.getMessage() for record in caplog.records)
    assert "cannot be sent" in first
    assert "sent again, 4 were dropped" in last
    assert dispatched == ["batcher-paused"]
    app.close()


# The log


def records(caplog: pytest.LogCaptureFixture, level: int) -> list[Any]:
    return [one for one in caplog.records if one.levelno == level and "releas" in one.msg]


def test_a_released_batch_is_one_line_that_has_all_its_fields(
    site: InMemory, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write", max_batch_size=2)(lambda batch: None)
    write.enqueue_many(["secret"] * 5, cost=3)
    site.clock.advance(1.25)
    with caplog.at_level(logging.DEBUG, "celery_batcher"):
        site.tick(batcher, 2)

    lines = records(caplog, logging.INFO)
    assert [(one.operations, one.cost, one.trigger) for one in lines] == [
        (2, 6, "size"),
        (2, 6, "size"),
        (1, 3, "interval"),
    ]
    first = lines[0]
    assert first.getMessage() == (
        "released 2 operations of write, cost 6, trigger size, oldest 1.2 s, "
        f"batch {first.batch_id}"
    )
    assert (first.batcher, first.watcher, first.oldest_age) == ("b", "write", 1.25)
    (nothing,) = records(caplog, logging.DEBUG)
    assert (nothing.getMessage(), nothing.reason) == ("b: nothing released, empty", "empty")
    assert "secret" not in caplog.text


def test_nothing_is_made_where_nobody_listens(
    site: InMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("made for nobody")

    caplog.set_level(logging.WARNING, "celery_batcher")
    for name in ("named", "spoken", "_facts"):
        monkeypatch.setattr(announcing, name, never)
    monkeypatch.setattr(EventSender, "send", never)
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(fail_and_throttle)
    write.enqueue_many(["fail", "later"])
    site.tick(batcher)

    assert batcher.status().dead == 1
    assert batcher.status().waiting == 1
