"""A Celery project whose handlers write down what they get, and do what payloads tell them.

Workers and beat import it with `celery -A projects.recording`; a test builds the same project in
its own process, to enqueue. What batchers and watchers there are stands in a JSON file, whose path
is in `RECORDING_PROJECT`.

A payload is a dictionary; its ``do`` lists what the first, second, ... attempt does:

====== ==========================================================================
ok     nothing; so does every attempt that is not listed
raise  raise an error
hang   sleep for a minute, unless a limit ends it
gate   wait until the file ``gate`` is in the project's directory
slow   sleep for 0.2 s
die    kill the process
stuck  go on for ever, whatever error is raised
late   return two seconds after the batch's deadline
spin   keep the processor busy for 30 ms
commit decide that the operation is done, and commit
fail   decide that it has failed, for the reason ``why`` of the payload
later  decide that it is to be tried again after half a second
====== ==========================================================================
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery

from celery_batcher import Batch, Batcher, Operation, ProvisionedResource, Row, Watcher

VARIABLE = "RECORDING_PROJECT"


class HandlerError(Exception):
    """What a handler raises when a payload says so."""


@dataclass(frozen=True, slots=True)
class Project:
    """An app with its batchers, and its watchers by name."""

    app: Celery
    batchers: dict[str, Batcher]
    watchers: dict[str, Watcher]


def _add_backfill(
    watchers: dict[str, Watcher],
    name: str,
    *,
    watcher: str,
    rows: int,
    pause: float,
    **options: Any,
) -> None:
    """A back-fill of numbered rows, from a source that takes its time."""

    def numbers(checkpoint: Any) -> Iterator[Row]:
        for n in range(checkpoint or 0, rows):
            time.sleep(pause)
            yield Row({"n": n}, checkpoint=n + 1)

    watchers[watcher].backfill(name, **options)(numbers)


class Recorder:
    """The journal: a line when a handler starts and one when it ends, from any process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def handler(self) -> Callable[[Batch], None]:
        """A handler that records and does what payloads say."""

        def handle(batch: Batch) -> None:
            started = time.monotonic()
            operations = [[op.id, op.attempt, op.payload, op.key, op.priority] for op in batch]
            self._write("start", batch, t=started, cost=batch.cost, operations=operations)
            outcome = "returned"
            try:
                for op in batch:
                    self._act(op, batch)
            except BaseException as exc:
                outcome = type(exc).__name__
                raise
            finally:
                self._write("end", batch, t=time.monotonic(), outcome=outcome)

        return handle

    def note_flusher(self, batcher: str) -> Callable[[str, int, str, Any], None]:
        """A listener that notes which process flushes a batcher."""

        def listen(event: str, _val: int, _msg: str, _metadata: Any) -> None:
            if event == "flush-start":
                (self._directory / f"flusher-{batcher}.{os.getpid()}").touch()

        return listen

    def _act(self, op: Operation, batch: Batch) -> None:
        actions, attempt = op.payload.get("do", []), op.attempt
        action = actions[attempt - 1] if attempt <= len(actions) else "ok"
        if action == "raise":
            raise HandlerError(f"attempt {attempt} was told to raise")
        if action == "commit":
            batch.done(op)
            batch.commit()
        elif action == "fail":
            batch.fail(op, op.payload.get("why", "told to fail"))
        elif action == "later":
            batch.retry(op, after=0.5)
        else:
            self._take_time(action, batch)

    def _take_time(self, action: str, batch: Batch) -> None:
        if action in ("hang", "slow"):
            time.sleep({"hang": 60, "slow": 0.2}[action])
        elif action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stuck":
            while True:
                with suppress(Exception):
                    time.sleep(60)
        elif action == "gate":
            while not (self._directory / "gate").exists():
                time.sleep(0.01)
        elif action == "late":
            time.sleep(batch.remaining + 2.0)
        elif action == "spin":
            until = time.process_time() + 0.03
            while time.process_time() < until:
                pass

    def _write(self, event: str, batch: Batch, **fields: Any) -> None:
        line = {"event": event, "batch": batch.id, "watcher": batch.watcher, "pid": os.getpid()}
        data = json.dumps(line | fields).encode() + b"\n"
        # One write with O_APPEND is whole, whatever happens to the process afterwards.
        journal = os.open(
            self._directory / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode=0o600
        )
        try:
            os.write(journal, data)
        finally:
            os.close(journal)


def _without(hidden: str, payload: dict[str, Any]) -> dict[str, Any]:
    return {key: "***" if key == hidden else value for key, value in payload.items()}


def build(settings: dict[str, Any]) -> Project:
    """Make the project that the settings describe."""
    app = Celery("recording", broker=settings["broker"], set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
    )
    app.conf.update(settings["conf"])
    recorder = Recorder(Path(settings["directory"]))
    batchers: dict[str, Batcher] = {}
    watchers: dict[str, Watcher] = {}
    for name, described in settings["batchers"].items():
        capacity = described.get("capacity")
        resource = (
            None
            if capacity is None
            else ProvisionedResource(capacity, name=described.get("resource"))
        )
        options = {"start_grace": 0.05, "max_operation_time": 20.0, **described.get("options", {})}
        if "hidden" in described:
            options["mask"] = partial(_without, described["hidden"])
        batcher = Batcher(name, app=app, rate_limiter=resource, **options)
        if described.get("note_flusher"):
            batcher.add_listener(recorder.note_flusher(name))
        batchers[name] = batcher
        for watcher_name, watcher_options in described["watchers"].items():
            decorate = batcher.watcher(name=watcher_name, **watcher_options)
            watchers[watcher_name] = decorate(recorder.handler())
        for backfill_name, told in described.get("backfills", {}).items():
            _add_backfill(watchers, backfill_name, **told)
    app.finalize()
    return Project(app, batchers, watchers)


if VARIABLE in os.environ:
    app = build(json.loads(Path(os.environ[VARIABLE]).read_text())).app
