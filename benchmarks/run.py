"""Measures celery_batcher beside plain Celery and celery-batches, on one private server.

    python benchmarks/run.py [--quick] [--only throughput latency ...] [--server PATH]

Prints tables, and leaves `results.json` and `results.png` in `benchmarks/out`. What is asked stands
beside what was measured; the exit code says only whether everything could be measured.

`CELERY_BATCHES_PYTHON` names the Python of an environment with celery-batches, which needs an older
Celery; without it that contender is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

import audit
import capacity
import chart
import idle
import latency
import memory
import report
import scaling
import sharing
import throughput
from processes import Bench, Contender, Server

OUT = Path(__file__).parent / "out"

Figures = dict[str, Any]
console = Console(width=110)


MEASUREMENTS = {
    "throughput": throughput.measure,
    "latency": latency.measure,
    "capacity": capacity.measure,
    "sharing": sharing.measure,
    "memory": memory.measure,
    "scaling": scaling.measure,
    "audit": audit.measure,
    "idle": idle.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=MEASUREMENTS)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    parser.add_argument("--server", help="Redis-compatible binary instead of the embedded one")
    options = parser.parse_args()
    python = os.environ.get("CELERY_BATCHES_PYTHON")
    batches = Contender("batches", python) if python else None
    if batches is None:
        console.print("CELERY_BATCHES_PYTHON is not set: celery-batches is left out.")
    figures: Figures = {}
    failed = []
    with Server.running(options.server) as server:
        figures["environment"] = environment(server, options.quick)
        bench = Bench(server, batches, options.quick)
        for name in options.only:
            started = time.monotonic()
            try:
                figures |= MEASUREMENTS[name](bench)
            except Exception:  # noqa: BLE001 - the other measurements go on
                traceback.print_exc()
                failed.append(name)
            console.print(f"{name}: {time.monotonic() - started:.0f} s", style="dim")
    OUT.mkdir(exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(figures, indent=2))
    chart.draw(figures, OUT / "results.png")
    report.show(figures, console)
    if failed:
        console.print(f"Could not be measured: {', '.join(failed)}", style="bold red")
    return len(failed)


def environment(server: Server, quick: bool) -> dict[str, str | int | bool | None]:
    return {
        "quick": quick,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "server": server.version,
        **{package: version(package) for package in ("celery", "kombu", "redis")},
    }


if __name__ == "__main__":
    sys.exit(main())
