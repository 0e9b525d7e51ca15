"""The three ways to write the documents, and the processes that each of them needs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from celery import Celery

import batched
import plain
from celery_batcher.embedded import GuardedProcess, free_port
from pricing import CAPACITY, Document

HERE = Path(__file__).parent
START_TIMEOUT = 30.0
WRITERS = "--concurrency=4"


@dataclass(frozen=True, slots=True)
class Way:
    """A Celery app, how documents are enqueued there, and the options of its workers.

    It is ready to start when its workers answer and `ready` says so.
    """

    key: str
    title: str
    app: Celery
    enqueue: Callable[[Iterable[Document]], None]
    workers: tuple[tuple[str, ...], ...]
    ready: Callable[[], bool] = lambda: True


WAYS = (
    Way(
        key="one-by-one",
        title="plain Celery, one by one",
        app=plain.app,
        enqueue=plain.enqueue_one_by_one,
        workers=((WRITERS, "--queues=one-by-one"),),
    ),
    Way(
        key="by-hundreds",
        title="plain Celery, by hundreds",
        app=plain.app,
        enqueue=plain.enqueue_by_hundreds,
        workers=((WRITERS, "--queues=by-hundreds"),),
    ),
    Way(
        key="batched",
        title="celery_batcher",
        app=batched.app,
        enqueue=batched.enqueue,
        workers=(
            (WRITERS, "--queues=celery"),
            ("--concurrency=1", "--queues=control", "--beat", "--schedule={out}/beat-schedule"),
        ),
        ready=lambda: batched.cosmos.status().phase == "flushing",
    ),
)


@contextmanager
def running_store(database: Path) -> Iterator[str]:
    """A document store in a process of its own; yields its URL."""
    port = free_port()
    command = [sys.executable, "store.py", str(database)]
    command += [f"--capacity={CAPACITY}", f"--port={port}"]
    process = GuardedProcess(command, directory=HERE, log=database.with_suffix(".store.log"))
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=6)) as patient:
            patient.get(f"{url}/stats").raise_for_status()
        yield url
    finally:
        process.stop()


@contextmanager
def running_workers(way: Way, store_url: str, out: Path) -> Iterator[None]:
    """The Celery processes of a way, ready to work."""
    environment = {**os.environ, "STORE_URL": store_url}
    workers: dict[str, GuardedProcess] = {}
    with ExitStack() as stack:
        for number, options in enumerate(way.workers, 1):
            name = f"{way.key}-{number}@localhost"
            command = [sys.executable, "-m", "celery", f"--app={way.app.main}", "worker"]
            command += [f"--hostname={name}", "--loglevel=warning", "--without-mingle"]
            command += [option.format(out=out) for option in options]
            log = out / f"{way.key}-{number}.log"
            workers[name] = GuardedProcess(command, directory=HERE, log=log, env=environment)
            stack.callback(workers[name].kill)
        _wait_until_ready(way, workers)
        yield


def _wait_until_ready(way: Way, workers: Mapping[str, GuardedProcess]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    silent = set(workers)
    while silent or not way.ready():
        if time.monotonic() > deadline or not all(worker.running for worker in workers.values()):
            raise RuntimeError(f"the workers of {way.title} did not start: see out/{way.key}-*.log")
        answers = way.app.control.ping(list(silent) or None, timeout=0.2, limit=len(workers))
        silent -= {name for answer in answers or () for name in answer}
