"""Spans of batches, and their links to the spans in which operations were enqueued."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from by_hand import ByHand
from celery_batcher import Batch, ProvisionedResource, Throttled, tracing, wire
from celery_batcher.contrib.opentelemetry import instrument, uninstrument
from eventually import eventually
from in_memory import InMemory


class Spans:
    """A provider, what it exported, and requests that enqueue."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("tests")

    def named(self, name: str) -> list[ReadableSpan]:
        return [one for one in self.exporter.get_finished_spans() if one.name == name]

    def request(self, name: str = "POST /orders") -> Any:
        """The span of a request."""
        return self.tracer.start_as_current_span(name)


def ids(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(one.context.trace_id, one.context.span_id) for one in span.links]


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    instrument(spans.provider)
    yield spans
    uninstrument()


@pytest.fixture
def site() -> Iterator[InMemory]:
    site = InMemory()
    yield site
    site.close()


def test_a_batch_is_a_span_that_is_linked_to_each_request_once(
    site: InMemory, spans: Spans
) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(100))
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue("by nobody's request", cost=2)
    with spans.request():
        write.enqueue_many(range(3), cost=2)
        write.enqueue("one more", cost=2)
    with spans.request("POST /later"):
        write.enqueue("another", cost=2)
    site.tick(batcher)

    (batch,) = spans.named("process write")
    (first,), (second,) = spans.named("POST /orders"), spans.named("POST /later")
    assert linked(batch) == [ids(first), ids(second)]
    assert batch.kind is trace.SpanKind.CONSUMER
    assert batch.parent is None
    attributes = dict(batch.attributes or {})
    assert isinstance(attributes.pop("celery_batcher.batch.id"), str)
    assert attributes == {
        "messaging.system": "celery_batcher",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "write",
        "messaging.batch.message_count": 6,
        "celery_batcher.batch.operations": 6,
        "celery_batcher.batch.cost": 12,
        "celery_batcher.batch.done": 6,
    }


def test_what_the_handler_does_is_in_the_span_of_its_batch(site: InMemory, spans: Spans) -> None:
    batcher = site.batcher(flush_mode="tick")

    @batcher.watcher(name="write")
    def write(batch: Batch) -> None:
        with spans.tracer.start_as_current_span("bulk write"):
            pass

    write.enqueue(1)
    with spans.request("run/write"):  # as Celery's own instrumentation makes it
        site.tick(batcher)

    (batch,), (inner,) = spans.named("process write"), spans.named("bulk write")
    (task,) = spans.named("run/write")
    assert inner.parent is not None
    assert batch.parent is not None
    assert inner.parent.span_id == ids(batch)[1]
    assert batch.parent.span_id == ids(task)[1]


def test_no_batch_has_more_than_128_links(site: InMemory, spans: Spans) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write", max_batch_size=500)(lambda batch: None)
    for _ in range(200):
        with spans.request():
            write.enqueue(1)
    site.tick(batcher)

    (batch,) = spans.named("process write")
    first = [ids(one) for one in spans.named("POST /orders")][:128]
    assert linked(batch) == first


def test_a_handler_that_raises_makes_the_span_an_error_and_a_429_does_not(
    site: InMemory, spans: Spans
) -> None:
    batcher = site.batcher(flush_mode="tick", rate_limiter=ProvisionedResource(9))
    fails = batcher.watcher(name="fails", max_attempts=1)(lambda batch: 1 / 0)

    @batcher.watcher(name="slows")
    def slows(batch: Batch) -> None:
        raise Throttled(retry_after=60)

    fails.enqueue(1)
    site.tick(batcher)
    slows.enqueue(1)
    site.tick(batcher, 2)

    (failed,), (throttled,) = spans.named("process fails"), spans.named("process slows")
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in failed.events] == ["exception"]
    assert throttled.status.status_code is trace.StatusCode.UNSET
    assert (throttled.attributes or {})["celery_batcher.batch.state"] == "throttled"


def test_links_survive_the_index_retries_death_and_redrive(
    redis_url: str, unique: str, key_prefix: str, spans: Spans
) -> None:
    by_hand = ByHand(redis_url, unique, key_prefix)
    try:
        work = by_hand.watcher(max_attempts=2, bisect=False)

        def fail(batch: Batch) -> None:
            raise LookupError("no such row")

        by_hand.handlers["work"] = fail
        with spans.request("A"):
            work.enqueue_many([1, 2], dedupe_key=str)
        with spans.request("B"):
            work.enqueue({"n": 3}, key="k")
        for attempts in (1, 2):
            assert by_hand.batcher.status().done == 0
            for batch in eventually(by_hand.flush):
                with pytest.raises(LookupError):
                    by_hand.run(batch)
            assert len(spans.named("process work")) == attempts
        assert work.dead_letters.redrive() == 3
        by_hand.handlers["work"] = lambda batch: None
        for batch in eventually(by_hand.flush):
            by_hand.run(batch)
    finally:
        by_hand.close()

    (a,), (b,) = spans.named("A"), spans.named("B")
    assert [sorted(linked(one)) for one in spans.named("process work")] == [
        sorted([ids(a), ids(b)])
    ] * 3


def test_nothing_is_carried_for_what_is_not_sampled_or_not_traced(
    site: InMemory, spans: Spans
) -> None:
    batcher = site.batcher()
    write = batcher.watcher(name="write")(lambda batch: None)
    encoder = batcher.encoder(write)

    def flags() -> int:
        return wire.decode_entry(encoder.one(write.operation(1)))[0].flags

    with spans.request():
        assert flags() & wire.TRACED
        uninstrument()
        assert not flags() & wire.TRACED
    instrument(spans.provider)
    assert not flags() & wire.TRACED
    with TracerProvider(sampler=ALWAYS_OFF).get_tracer("t").start_as_current_span("unsampled"):
        assert not flags() & wire.TRACED


def test_a_context_that_is_too_long_is_shortened_to_what_links_need(spans: Spans) -> None:
    state = trace.TraceState([(f"vendor{n}", "x" * 250) for n in range(10)])
    with spans.request() as span:
        real = span.get_span_context()
    far = trace.SpanContext(real.trace_id, real.span_id, True, trace.TraceFlags(1), state)
    with trace.use_span(trace.NonRecordingSpan(far)):
        carried = tracing.context()

    assert 0 < len(carried) < 100
    assert f"{real.trace_id:032x}".encode() in carried


@pytest.mark.parametrize("damaged", [b"no json", b"[1]", b'{"traceparent": 7}', b"\xff"])
def test_a_damaged_context_costs_a_link_and_nothing_else(
    site: InMemory, spans: Spans, monkeypatch: pytest.MonkeyPatch, damaged: bytes
) -> None:
    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: None)
    monkeypatch.setattr(tracing, "context", lambda: damaged)
    write.enqueue(1)
    site.tick(batcher)

    assert batcher.status().done == 1
    assert linked(spans.named("process write")[0]) == []


def test_a_tracer_that_fails_is_logged_and_the_batch_is_handled(
    site: InMemory,
    spans: Spans,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise LookupError("sampler's own")

    batcher = site.batcher(flush_mode="tick")
    write = batcher.watcher(name="write")(lambda batch: None)
    write.enqueue(1)
    monkeypatch.setattr("opentelemetry.sdk.trace.Tracer.start_span", fail)
    with caplog.at_level(logging.ERROR, "celery_batcher"):
        site.tick(batcher)

    assert batcher.status().done == 1
    assert "sampler's own" in caplog.text
