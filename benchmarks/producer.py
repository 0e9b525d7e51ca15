"""Enqueues rows in a process of its own, in the contender's environment, and reports as JSON.

python -m producer plain delay --count 10000
python -m producer batched packed --rate 5000 --seconds 5 --chunk 50
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from statistics import median
from typing import Any

Send = Callable[[Iterable[dict[str, Any]]], None]


def row(number: int) -> dict[str, Any]:
    """The payload of all contenders: 153 to 159 bytes of JSON."""
    return {
        "id": number,
        "name": f"customer {number:09}",
        "email": f"customer.{number:09}@example.com",
        "city": "San Fernando del Valle de Catamarca",
        "balance": 1234.5,
    }


def rows(count: int) -> Iterator[dict[str, Any]]:
    return map(row, range(count))


def paced(send: Send, rate: float, seconds: float, chunk: int) -> int:
    """Send `rate` rows a second in chunks, each row with the time at which it was sent."""
    started = time.monotonic()
    sent = 0
    while sent < rate * seconds:
        due = started + sent / rate
        time.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        send([{**row(number), "at": now} for number in range(sent, sent + chunk)])
        sent += chunk
    return sent


def timed(send: Send, count: int) -> list[float]:
    """Send rows one by one; seconds that each call took."""
    took = []
    for one in rows(count):
        started = time.perf_counter()
        send([one])
        took.append(time.perf_counter() - started)
    return took


def peak_memory() -> int:
    """The most bytes this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("way")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rate", type=float, help="rows per second, for --seconds in --chunks")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--chunk", type=int, default=1)
    parser.add_argument("--timed", type=int, default=0, help="send --count rows, time every call")
    options = parser.parse_args()
    send: Send = import_module(f"apps.{options.app}").WAYS[options.way]
    send([row(0)])  # opens connections, loads scripts
    sent, calls = options.count, []
    started, cpu = time.monotonic(), time.process_time()
    if options.rate:
        sent = paced(send, options.rate, options.seconds, options.chunk)
    elif options.timed:
        calls = timed(send, options.count)
    else:
        send(rows(options.count))
    report = {
        "sent": sent,
        "opened": 1,
        "started": started,
        "ended": time.monotonic(),
        "cpu": time.process_time() - cpu,
        "peak_memory": peak_memory(),
        "median_call": median(calls) if calls else None,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
