"""Named points of the code, at which a process of the fleet kills itself with SIGKILL.

A point is a moment before or after an act of a component: ``flusher.after_release`` is the instant
when the store has released a batch and the flusher has not read the answer yet. The acts are
wrapped in the process that is to die; nothing in the package knows of it. ``FAULT_POINT`` names
the point and the call that kills, ``flusher.after_release:3``; ``FAULT_MARK`` is the file that
notes it, so that it happens once; ``FAULT_SCOPE=group`` takes the whole process group along.
"""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.beat import Scheduler

from celery_batcher import tasks
from celery_batcher.duties import Duties
from celery_batcher.intakes.kombu import KombuIntake
from celery_batcher.intakes.redis import RedisIntake
from celery_batcher.publishers.kombu import KombuPublisher
from celery_batcher.publishers.redis import RedisPublisher
from celery_batcher.store.redis import RedisStore


@dataclass(frozen=True, slots=True)
class Act:
    """Something a component does: where it is in the code, and the last call that may kill."""

    owners: tuple[Any, ...]
    method: str
    most: int = 1


_INTAKES = (RedisIntake, KombuIntake)
_STORE = (RedisStore,)
ACTS: dict[str, dict[str, Act]] = {
    "flusher": {
        "take_turn": Act(_STORE, "take_turn", 8),
        "adopt": Act(_INTAKES, "adopt"),
        "take": Act(_INTAKES, "take", 8),
        "stage": Act(_STORE, "stage", 8),
        "acknowledge": Act(_INTAKES, "acknowledge", 8),
        "forget": Act(_STORE, "forget", 2),
        "release": Act(_STORE, "release", 12),
        "publish": Act((Duties,), "publish", 5),
        "publish_one": Act((tasks,), "_publish_batch", 8),
        "published": Act(_STORE, "published", 5),
        "expire": Act(_STORE, "expire", 4),
        "probe": Act(_STORE, "probe", 4),
        "offer": Act(_STORE, "offer", 4),
    },
    "worker": {
        "claim": Act(_STORE, "claim", 6),
        "commit": Act(_STORE, "commit", 2),
        "settle": Act(_STORE, "settle", 6),
    },
    "producer": {
        "admit": Act(_STORE, "admit", 15),
        "publish": Act((RedisPublisher, KombuPublisher), "publish", 15),
    },
    "beat": {"send": Act((Scheduler,), "apply_async", 6)},
}
PLACES = {"worker.in_handler": 6, "worker.after_execute": 6, "producer.after_enqueue": 10}
"""Points in the project itself: as the handler begins, and between its transaction and settle."""


def points() -> dict[str, int]:
    """All points by name, and the last call of each that may kill."""
    of_acts = {
        f"{component}.{when}_{name}": act.most
        for component, acts in ACTS.items()
        for name, act in acts.items()
        for when in ("before", "after")
    }
    return of_acts | PLACES


class _Armed:
    """The point of this process, if it has one."""

    name = ""
    left = 0


def reach(name: str) -> None:
    """Die here, if this is the point and the call of it that kills."""
    if name == _Armed.name:
        _Armed.left -= 1
        if _Armed.left == 0:
            _die()


def _die() -> None:
    line = json.dumps({"at": time.monotonic(), "pid": os.getpid()})
    try:
        with Path(os.environ["FAULT_MARK"]).open("x") as mark:
            mark.write(line)
    except FileExistsError:  # another child of the same worker has died here already
        return
    if os.environ.get("FAULT_SCOPE") == "group":
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def arm() -> None:
    """Do what ``FAULT_POINT`` says to this process and its children."""
    name, _, number = os.environ.get("FAULT_POINT", "").partition(":")
    if not name:
        return
    _Armed.name, _Armed.left = name, int(number)
    if name in PLACES:
        return
    component, _, moment = name.partition(".")
    act = ACTS[component][moment.partition("_")[2]]
    for owner in act.owners:
        _wrap(owner, act.method, name, before=moment.startswith("before"))


def _wrap(owner: Any, method: str, name: str, *, before: bool) -> None:
    real = getattr(owner, method)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            reach(name)
        answer = real(*args, **kwargs)
        if not before:
            reach(name)
        return answer

    setattr(owner, method, wrapped)
