"""OpenTelemetry: the handling of a batch is linked to every request that enqueued for it.

    from celery_batcher.contrib.opentelemetry import instrument

    instrument()    # where you instrument Celery: in web processes and in workers

See docs/tracing.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .. import tracing
from ..batch import Batch

try:
    from opentelemetry import propagate, trace
except ImportError as exc:  # pragma: no cover
    raise ImportError(
        'OpenTelemetry is not installed: pip install "celery-batcher[opentelemetry]"'
    ) from exc

logger = logging.getLogger("celery_batcher")

MAX_LINKS = 128


def instrument(tracer_provider: Any = None) -> None:
    """Carry contexts of traces with operations, and make a span of each batch, in this process.

    Args:
        tracer_provider: where spans go; by default the global one.
    """
    tracing.install(_OpenTelemetry(tracer_provider))


def uninstrument() -> None:
    """Carry and make nothing any more, in this process."""
    tracing.install(None)


class _OpenTelemetry:
    def __init__(self, tracer_provider: Any) -> None:
        self._tracer = trace.get_tracer("celery_batcher", tracer_provider=tracer_provider)

    def context(self) -> bytes:
        """What the configured propagators say of a trace that is sampled; else nothing."""
        current = trace.get_current_span().get_span_context()
        if not (current.is_valid and current.trace_flags.sampled):
            return b""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        whole = json.dumps(carrier, separators=(",", ":")).encode()
        if len(whole) > tracing.MAX_CONTEXT and "traceparent" in carrier:
            carrier = {"traceparent": carrier["traceparent"]}
            whole = json.dumps(carrier, separators=(",", ":")).encode()
        return whole

    def process(
        self, batch: Batch, contexts: Sequence[bytes], handle: tracing.Handle
    ) -> dict[str, Any]:
        """Handle a batch in a span of its own; in none, if that fails."""
        try:
            span = self._tracer.start_span(
                f"process {batch.watcher}",
                kind=trace.SpanKind.CONSUMER,
                attributes=_attributes(batch),
                links=_links(contexts),
            )
        except Exception:
            logger.exception("batch %s has no span", batch.id)
            return handle()
        with trace.use_span(span, end_on_exit=True):
            became = handle()
            for name, value in became.items():
                if name != "cost":
                    span.set_attribute(f"celery_batcher.batch.{_WORDS.get(name, name)}", value)
            return became


_WORDS = {"batch": "state"}


def _attributes(batch: Batch) -> dict[str, Any]:
    """Semantic conventions of messaging, and what only batches have."""
    cost = batch.cost
    costs = {"": cost} if isinstance(cost, int) else {f".{name}": one for name, one in cost.items()}
    return {
        "messaging.system": "celery_batcher",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": batch.watcher,
        "messaging.batch.message_count": len(batch),
        "celery_batcher.batch.id": batch.id,
        "celery_batcher.batch.operations": len(batch),
        **{f"celery_batcher.batch.cost{name}": one for name, one in costs.items()},
    }


def _links(contexts: Sequence[bytes]) -> list[Any]:
    """Links to the spans in which operations were enqueued: each once, and not too many."""
    found: dict[tuple[int, int], Any] = {}
    for one in contexts:
        if len(found) >= MAX_LINKS:
            break
        span = trace.get_current_span(propagate.extract(_carrier(one))).get_span_context()
        if span.is_valid:
            found[span.trace_id, span.span_id] = trace.Link(span)
    return list(found.values())


def _carrier(data: bytes) -> Mapping[str, str]:
    """What was injected; nothing where somebody else wrote it."""
    try:
        carrier = json.loads(data)
    except ValueError:
        logger.debug("the context of a trace cannot be read: %r", data[:100])
        return {}
    if not isinstance(carrier, dict):
        return {}
    return {name: value for name, value in carrier.items() if isinstance(value, str)}
