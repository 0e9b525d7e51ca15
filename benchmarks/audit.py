"""How long the scripts of the audit hold the server up, with much that waits."""

from __future__ import annotations

import json
import time
from typing import Any

from processes import BATCHED, Bench, Fleet, Server


def measure(bench: Bench) -> dict[str, Any]:
    many = int(1_000_000 * bench.scale)
    few = many // 10
    return {
        "audit": {
            f"{many:,} waiting": _pass(bench, many),
            f"{few:,} waiting, 1,000 keys": _pass(bench, few, keys=1_000),
        }
    }


def _pass(bench: Bench, waiting: int, **settings: int) -> dict[str, float]:
    with (
        Server.running(bench.server.binary) as server,
        Fleet(server, BATCHED, None, batch_size=10, **settings) as fleet,
    ):
        fleet.produce("packed", count=waiting)
        fleet.run("apps.intake")
        time.sleep(1.0)
        figures: dict[str, float] = json.loads(fleet.run("apps.audits"))
        return figures
