"""Bytes of server memory per waiting operation, and the producer's own memory."""

from __future__ import annotations

import json
import time
from typing import Any

from processes import BATCHED, PLAIN, SHARED, Bench, Fleet
from producer import row


def measure(bench: Bench) -> dict[str, Any]:
    return {"memory": _per_operation(bench), "producer memory": _of_producer(bench)}


def _per_operation(bench: Bench) -> dict[str, float]:
    """Bytes that the server holds for each operation that waits, beside the payload's own size."""
    server = bench.server
    many = int(200_000 * bench.scale)
    with Fleet(server, BATCHED, None) as fleet:
        single = _growth(fleet, "one_per_message", many)
    with Fleet(server, BATCHED, None, capacity=1) as fleet:
        before = server.used_memory()
        packed = _growth(fleet, "packed", many)
        fleet.start(SHARED)
        fleet.run("apps.intake")
        time.sleep(2.0)  # leases and output buffers go
        index = (server.used_memory() - before) / many
    with Fleet(server, PLAIN, None) as fleet:
        plain = _growth(fleet, "delay", int(5_000 * bench.scale))
    return {
        "payload": len(json.dumps(row(many))),
        "plain": plain,
        "one per message": single,
        "packed": packed,
        "index": index,
    }


def _of_producer(bench: Bench) -> dict[str, int]:
    """Peak bytes of a process that enqueues rows from a generator, by number of rows."""
    peaks = {}
    for count in (int(100_000 * bench.scale), int(1_000_000 * bench.scale)):
        with Fleet(bench.server, BATCHED, None) as fleet:
            peaks[f"{count:,}"] = fleet.produce("packed", count=count).peak_memory
    return peaks


def _growth(fleet: Fleet, way: str, count: int) -> float:
    before = fleet.server.used_memory()
    fleet.produce(way, count=count)
    return (fleet.server.used_memory() - before) / count
