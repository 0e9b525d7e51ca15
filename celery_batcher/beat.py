"""Beat entries: one per batcher and control task."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from celery import Celery
from celery import _state as celery_state

from .config import SETTINGS

if TYPE_CHECKING:
    from celery.schedules import BaseSchedule

    from .backfill import Backfill
    from .batcher import Batcher

TASKS = ("flush", "limit", "audit")
WANTED_BEATS = 2.5


def wanted_ms(beat_interval: int) -> int:
    """How long flushing is wanted after a tick: until two more ticks have been missed."""
    return int(WANTED_BEATS * beat_interval * 1000)


def schedule(app: Celery | None, batcher: Batcher) -> None:
    """Add the batcher's entries to the schedule of its app (of every app without one)."""
    when_finalized(app, lambda app: _add(app, batcher))


def schedule_backfill(backfill: Backfill, when: BaseSchedule | float | timedelta) -> None:
    """Let beat send a back-fill's task."""
    entry: dict[str, Any] = {"task": backfill.task_name, "schedule": when}
    if backfill.queue is not None:
        entry["options"] = {"queue": backfill.queue}
    name = f"celery_batcher:{backfill.batcher.name}:backfill:{backfill.name}"

    def add(app: Celery) -> None:
        app.conf.beat_schedule = {name: entry, **(app.conf.beat_schedule or {})}

    when_finalized(backfill.batcher.own_app, add)


def when_finalized(app: Celery | None, callback: Callable[[Celery], Any]) -> None:
    """Call back when an app is complete: now, or when it is finalized."""
    if app is None:
        state: Any = celery_state
        for active in list(state._get_active_apps()):
            if active.finalized:
                callback(active)
        # Celery calls these in any order, our tasks among them: wait until all have been called.
        state.connect_on_app_finalize(lambda app: _after(app, callback))
    elif cast(Any, app).finalized:
        callback(app)
    else:
        _after(app, callback)


def _after(app: Celery, callback: Callable[[Celery], Any]) -> None:
    app.on_after_finalize.connect(lambda sender, **_: callback(sender), weak=False)


def _add(app: Celery, batcher: Batcher) -> None:
    conf = app.conf
    queue = conf.get("batcher_control_queue") or SETTINGS["batcher_control_queue"]
    every = {
        "flush": float(batcher.option("beat_interval")),
        "limit": max(1.0, float(round(batcher.option("capacity_interval")))),
        "audit": max(1.0, float(round(batcher.option("audit_interval")))),
    }
    entries: dict[str, Any] = {}
    for task in TASKS:
        name = f"celery_batcher.{task}"
        entries[f"celery_batcher:{batcher.name}:{task}"] = {
            "task": name,
            "schedule": every[task],
            "args": (batcher.name,),
        }
        if queue:
            cast(Any, app.tasks[name]).queue = queue
    conf.beat_schedule = {**entries, **(conf.beat_schedule or {})}
