"""The Celery project whose processes are killed: one batcher, its handler, its producers.

Handlers write to a database of their own, see `facts`. A payload is ``{"n": name, "do": what}``;
``do`` is ``work``, ``retry`` (asks for another try in the first), ``raise`` (does, in the first) or
``fail`` (is a dead letter).
"""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from celery import Celery

from celery_batcher import (
    Batch,
    Batcher,
    EnqueueUncertainError,
    Operation,
    ProvisionedResource,
    Watcher,
)
from celery_batcher.claim import Claimant
from celery_batcher.errors import EnqueueError
from faults import points
from faults.facts import FactBook

BATCHER, WATCHER, CONTROL = "faults", "faults.work", "control"
OPERATION_TIME, CLAIM_GRACE, BEAT = 3.0, 1.0, 1
_HALVED = 6
"""One batch in so many is committed half-way."""
_SHARES = {"work": 0.985, "retry": 0.01, "fail": 0.0025, "raise": 0.0025}


class HandlerError(Exception):
    """What the handler raises when a payload says so."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of the fleet must know. ``rate`` is a producer's operations a second."""

    broker: str
    store: str
    directory: str
    rate: int = 150

    def as_dict(self) -> dict[str, Any]:
        """For the process that is to be forked."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Project:
    """The app with its batcher and watcher."""

    app: Celery
    batcher: Batcher
    watcher: Watcher


def build(settings: Settings) -> Project:
    """Make the project, as each of its processes does."""
    app = Celery("faults", broker=settings.broker, set_as_current=False)
    app.conf.update(
        batcher_store_url=settings.store,
        batcher_control_queue=CONTROL,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=True,
    )
    directory = Path(settings.directory)
    book = FactBook(directory)
    batcher = Batcher(
        BATCHER,
        app=app,
        rate_limiter=ProvisionedResource(3000),
        beat_interval=BEAT,
        max_operation_time=OPERATION_TIME,
        claim_grace=CLAIM_GRACE,
        start_grace=0.05,
        enqueue_timeout=5.0,
    )

    def flushes(event: str, _val: int, _msg: str, _metadata: Any) -> None:
        if event == "flush-start":
            (directory / f"{os.getpid()}.flushes").touch()

    batcher.add_listener(flushes)
    decorate = batcher.watcher(name=WATCHER, max_batch_size=20, max_attempts=20)
    watcher = decorate(_handler(book))
    app.finalize()
    return Project(app, batcher, watcher)


def _handler(book: FactBook) -> Any:
    def work(batch: Batch) -> None:
        book.add("started", [op.payload["n"] for op in batch], batch.id)
        points.reach("worker.in_handler")
        time.sleep(random.uniform(0.005, 0.03))
        if any(op.payload["do"] == "raise" and op.attempt == 1 for op in batch):
            raise HandlerError("told to raise")
        todo = [op for op in batch if _to_be_executed(op, batch)]
        failed = [op.payload["n"] for op in batch if op.payload["do"] == "fail"]
        if failed:
            book.add("failed", failed, batch.id)
        if len(todo) > 1 and random.randrange(_HALVED) == 0:
            half = len(todo) // 2
            _execute(book, batch, todo[:half])
            for op in todo[:half]:
                batch.done(op)
            batch.commit()
            todo = todo[half:]
        _execute(book, batch, todo)

    return work


def _to_be_executed(op: Operation, batch: Batch) -> bool:
    if op.payload["do"] == "fail":
        batch.fail(op, "told to fail")
    elif op.payload["do"] == "retry" and op.attempt == 1:
        batch.retry(op, after=0.3)
    else:
        return True
    return False


def _execute(book: FactBook, batch: Batch, operations: list[Operation]) -> None:
    book.add("executed", [op.payload["n"] for op in operations], batch.id)
    points.reach("worker.after_execute")


def note_ends(directory: Path) -> None:
    """Let workers write down how the batch ended for them: what they learned of its outcome."""
    book, run = FactBook(directory), Claimant.run

    def noted(self: Claimant, batch_id: str) -> Any:
        try:
            answer = run(self, batch_id)
        except BaseException as exc:
            book.add("ended", [type(exc).__name__], batch_id)
            raise
        book.add("ended", [str(answer.get("batch", "settled"))], batch_id)
        return answer

    Claimant.run = noted  # type: ignore[method-assign]


class Producer:
    """Enqueues at a steady rate until SIGTERM, and writes down what enqueue said."""

    def __init__(self, settings: Settings) -> None:
        self._watcher = build(settings).watcher
        self._book = FactBook(Path(settings.directory))
        self._rate = settings.rate
        self._stopping = False
        self._names = (f"{uuid.uuid4().hex[:8]}-{n}" for n in count())
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def run(self) -> None:
        """Enqueue, in bulk and one by one in turns."""
        for chunk in count():
            if self._stopping:
                return
            rows = list(self._rows(10 if chunk % 2 else 2))
            until = time.monotonic() + len(rows) / self._rate
            self._enqueue(rows, own_ids=chunk % 4 < 2)
            time.sleep(max(0.0, until - time.monotonic()))

    def _rows(self, number: int) -> Iterator[dict[str, str]]:
        for _ in range(number):
            (do,) = random.choices(list(_SHARES), _SHARES.values())
            yield {"n": next(self._names), "do": do}

    def _enqueue(self, rows: list[dict[str, str]], *, own_ids: bool) -> None:
        """Enqueue, and write down for each operation what became of it."""
        names = [row["n"] for row in rows]
        try:
            if len(rows) > 2:
                id = (lambda row: row["n"]) if own_ids else None
                self._watcher.enqueue_many(rows, id=id, pack=4, cost=2)
            else:
                for done, row in enumerate(rows):
                    try:
                        self._watcher.enqueue(row, id=row["n"] if own_ids else None)
                    except EnqueueError as exc:
                        exc.enqueued += done
                        raise
        except EnqueueUncertainError as exc:
            self._book.add("returned", names[: exc.enqueued])
            behind = exc.enqueued + exc.uncertain
            self._book.add("uncertain", names[exc.enqueued : behind])
            self._book.add("refused", names[behind:])
            if own_ids:
                self._enqueue_again(rows[exc.enqueued : behind])
        except EnqueueError as exc:
            self._book.add("returned", names[: exc.enqueued])
            self._book.add("refused", names[exc.enqueued :])
        else:
            points.reach("producer.after_enqueue")
            self._book.add("returned", names)

    def _enqueue_again(self, rows: list[dict[str, str]]) -> None:
        """Enqueue what is in doubt until that returns: with ids of one's own it is safe."""
        while not self._stopping:
            try:
                self._watcher.enqueue_many(rows, id=lambda row: row["n"], pack=4)
            except EnqueueError:
                time.sleep(0.2)
            else:
                self._book.add("returned", [row["n"] for row in rows])
                return
