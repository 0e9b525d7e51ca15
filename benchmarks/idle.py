"""What waiting for work costs."""

from __future__ import annotations

import time
from typing import Any

from processes import APART, BATCHED, Bench, Fleet


def measure(bench: Bench) -> dict[str, Any]:
    """Shares of a core that each process takes while nothing is enqueued."""
    seconds = 10.0 * bench.scale
    with Fleet(bench.server, BATCHED, APART) as fleet:
        warm = fleet.produce("enqueue", count=10)
        fleet.eventually(lambda: fleet.handled() >= warm.sent + warm.opened)
        time.sleep(2.0)
        before = _cpu(fleet)
        time.sleep(seconds)
        after = _cpu(fleet)
    return {"idle": {name: (after[name] - before[name]) / seconds for name in before}}


def _cpu(fleet: Fleet) -> dict[str, float]:
    """The flusher is a thread in the control worker's child; beside it, that worker's own loop."""
    cpu = fleet.cpu()
    main, *_ = fleet.tree("control")
    loop = sum(main.cpu_times()[:2])
    return {
        "flusher": cpu["control"] - loop,
        "control worker's loop": loop,
        "idle worker": cpu["worker"],
        "beat": cpu["beat"],
        "server": cpu["server"],
    }
