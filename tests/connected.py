"""Letting go of what a test's own process has connected to: no socket is left to the collector."""

from __future__ import annotations

from celery_batcher.connections import Connections


def close(linked: Connections) -> None:
    """Close the connections of a batcher in this process."""
    pool = getattr(linked.publisher, "_pool", None)
    while pool is not None and pool._idle:
        pool._idle.pop().close()
    client = getattr(linked.store, "client", None)
    if client is not None:
        client.close()
