"""Writes the cities of GeoNames to a store of limited capacity, in three ways, and compares them.

FULL=1 writes all 234,908 of them; REDIS_URL names a Redis server to use instead of a private one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

import httpx
import redis
from rich.console import Console

from celery_batcher.embedded import EmbeddedServer
from chart import write_charts
from cities import load_cities
from pricing import CAPACITY, Document, request_units
from progress import Display
from report import Result, read_result, table
from ways import WAYS, Way, running_store, running_workers

OUT = Path(__file__).parent / "out"
DOCUMENTS = 20_000


def main() -> int:
    options = parse_options()
    console = Console() if sys.stdout.isatty() else Console(width=120)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()

    cities = load_cities(None if os.environ.get("FULL") else options.documents)
    units = sum(map(request_units, cities))
    time_limit = 3 + 1.2 * units / CAPACITY
    console.print(
        f"{len(cities):,} documents that cost {units:,} units; the store sells {CAPACITY:,} in any "
        f"second, which is {units / CAPACITY:.1f} s at best. Each way gets {time_limit:.0f} s."
    )
    ways = [way for way in WAYS if options.only in (None, way.key)]
    with ExitStack() as stack:
        start_redis(stack)
        display = stack.enter_context(Display(console, ways, len(cities)))
        results = [run(way, cities, time_limit, display) for way in ways]

    console.print(table(results))
    for file in write_charts(results, OUT):
        console.print(f"Chart: {os.path.relpath(file)}")
    return verdict(console, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=DOCUMENTS)
    parser.add_argument("--only", choices=[way.key for way in WAYS])
    return parser.parse_args()


def start_redis(stack: ExitStack) -> None:
    """Sees to it that there is a Redis server, and that a user's own is left as it was."""
    if "REDIS_URL" not in os.environ:
        os.environ["REDIS_URL"] = stack.enter_context(EmbeddedServer()).url
    prefix = os.environ["DEMO_KEY_PREFIX"] = f"celery-batcher-demo:{uuid.uuid4().hex}:"
    stack.callback(delete_keys, os.environ["REDIS_URL"], prefix)


def delete_keys(redis_url: str, prefix: str) -> None:
    with redis.Redis.from_url(redis_url) as server:
        for key in server.scan_iter(f"{prefix}*", count=1000):
            server.unlink(key)


def run(way: Way, cities: Sequence[Document], time_limit: float, display: Display) -> Result:
    database = OUT / f"{way.key}.sqlite"
    stopped = threading.Event()
    with (
        running_store(database) as store_url,
        running_workers(way, store_url, OUT),
        ThreadPoolExecutor(1) as producer,
        httpx.Client(base_url=store_url) as store,
    ):
        started = time.time()
        display.start(way)
        enqueued = producer.submit(way.enqueue, takewhile(lambda _: not stopped.is_set(), cities))
        try:
            written = 0
            while written < len(cities) and time.time() < started + time_limit:
                time.sleep(0.25)
                if enqueued.done():
                    enqueued.result()  # raises what went wrong
                stats = store.get("/stats").raise_for_status().json()
                written = stats["documents"]
                display.update(way, stats)
        finally:
            stopped.set()
        enqueued.result()
    result = read_result(way, database, cities, started, time_limit)
    display.finish(result)
    return result


def verdict(console: Console, results: Sequence[Result]) -> int:
    """Say whether celery_batcher kept its promise; the exit code of the demo."""
    failed = 0
    for result in results:
        if result.missing:
            console.print(
                f"{result.way.title} was stopped after {result.seconds:.0f} s: "
                f"{result.missing:,} documents were not written yet."
            )
        if result.way.key == "batched":
            failed = int(result.missing > 0 or result.refused > 0)
            console.print(
                f"{result.way.title}: {result.missing:,} documents missing, "
                f"{result.refused:,} requests refused: {'FAILED' if failed else 'passed'}."
            )
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
