"""Remote control: ``celery inspect batchers``, ``celery control batcher_pause NAME ...``.

What these do is in the store and for the whole fleet: it is the same whichever worker does it, and
how often. Handlers run in the main loop of a worker, which must not wait: each asks the store in a
thread, for so long as it may take.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..batcher import Batcher

PATIENCE = 2.0
"""Seconds that the main loop waits for an answer."""


def register(**_: Any) -> None:
    """Make the commands known to Celery in this process; again is no harm."""
    from celery.worker.control import control_command, inspect_command

    if "batchers" in _registered:
        return
    _registered.add("batchers")
    named = [("name", str)]
    inspect_command()(batchers)
    pausing = {"args": [*named, ("seconds", float)], "signature": "<name> [seconds]"}
    control_command(**pausing)(batcher_pause)
    control_command(args=named, signature="<name>")(batcher_resume)
    control_command(args=named, signature="<name>")(batcher_flush)


_registered: set[str] = set()


def batchers(state: Any, **_: Any) -> dict[str, Any]:
    """Status of the batchers that the worker knows."""
    from .. import tasks
    from ..plain import plain

    def ask(one: Batcher) -> Callable[[], Any]:
        return lambda: plain(one.status())

    answers = _answers({one.name: ask(one) for one in tasks.batchers(state.app)})
    return {name: answer.get("ok", answer) for name, answer in answers.items()}


def batcher_pause(state: Any, name: str, seconds: float | None = None, **_: Any) -> dict[str, Any]:
    """Pause a batcher in the whole fleet, for some seconds or until resumed."""

    def pause(batcher: Batcher) -> str:
        batcher.pause(None if seconds is None else float(seconds))
        return "paused until resumed" if seconds is None else f"paused for {float(seconds):g} s"

    return _do(state.app, name, pause)


def batcher_resume(state: Any, name: str, **_: Any) -> dict[str, Any]:
    """End a pause or a drain of a batcher, in the whole fleet."""

    def resume(batcher: Batcher) -> str:
        batcher.resume()
        return "resumed"

    return _do(state.app, name, resume)


def batcher_flush(state: Any, name: str, **_: Any) -> dict[str, Any]:
    """Flush a batcher as soon as possible."""

    def flush(batcher: Batcher) -> str:
        batcher.flush()
        return "flush asked for"

    return _do(state.app, name, flush)


def _do(app: Any, name: str, act: Callable[[Batcher], str]) -> dict[str, Any]:
    from .. import tasks

    return _answers({name: lambda: f"{name}: {act(tasks.the_batcher(app, str(name)))}"})[name]


def _answers(asks: Mapping[str, Callable[[], Any]]) -> dict[str, dict[str, Any]]:
    """What each returns, as Celery shows it; or why there is nothing, all of them in time."""
    found: dict[str, dict[str, Any]] = {}

    def run(name: str, ask: Callable[[], Any]) -> None:
        try:
            found[name] = {"ok": ask()}
        except Exception as exc:  # noqa: BLE001 - the worker's main loop must go on
            found[name] = {"error": f"{type(exc).__name__}: {exc}"}

    threads = [
        threading.Thread(target=run, args=one, name="celery_batcher:remote", daemon=True)
        for one in asks.items()
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {"error": f"the store did not answer within {PATIENCE:g} s"}
    return {name: found.get(name, late) for name in asks}
