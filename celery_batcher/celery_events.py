"""The ``batcher-*`` events: what happens with batchers, told to whoever captures Celery's events.

They are sent only where ``batcher_send_events`` says so, and never as ``task-*``, which would make
workers of processes that are none. No payload is in them.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from celery import Celery, signals
from celery.utils.nodenames import anon_nodename

from .apart import Apart

logger = logging.getLogger("celery_batcher")

_CONNECT_TIMEOUT = 5.0
_AFTER_ERROR = 5.0

EVENTS: Mapping[str, tuple[str, ...]] = {
    "batcher-released": ("batch_id", "watcher", "operations", "cost", "trigger", "oldest_age"),
    "batcher-started": ("batch_id", "watcher", "operations", "cost"),
    "batcher-settled": (
        *("batch_id", "watcher", "operations", "cost", "state"),
        *("done", "retried", "halved", "given_back", "dead", "runtime", "error"),
    ),
    "batcher-dead": ("batch_id", "watcher", "operations", "operation_ids"),
    "batcher-paused": ("pause_time",),
    "batcher-resumed": (),
    "batcher-throttled": ("resource", "watcher", "batch_id", "closed_for"),
}
"""Each event and its fields, beside ``batcher`` and those that Celery gives to all events."""

sending = Apart()


class EventSender:
    """Sends the events of an app, in order, on a connection of its own.

    It is used in one thread, which nothing waits for. What cannot be sent is dropped, and the log
    says so once an outage.
    """

    node = ""
    """The name of the worker whose process this is, if it is one."""

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._connection: Any = None
        self._dispatcher: Any = None
        self._pid = 0
        self._away_until = 0.0
        self._dropped = 0

    def send(self, event: str, fields: Mapping[str, Any]) -> None:
        """Send an event of this moment soon; when too many wait, it is dropped."""
        fields = {**fields, "timestamp": time.time()}
        if not sending.add(lambda: self.send_now(event, fields)):
            logger.debug("an event %s is dropped, too many wait to be sent", event)

    def send_now(self, event: str, fields: Mapping[str, Any]) -> None:
        """Send one event, unless the broker was away a moment ago."""
        if time.monotonic() < self._away_until:
            self._dropped += 1
            return
        try:
            self._connected().send(event, **fields)
        except Exception as exc:  # noqa: BLE001 - brokers raise anything; events are no promise
            self._close()
            self._away_until = time.monotonic() + _AFTER_ERROR
            if not self._dropped:
                logger.warning("batcher-* events are dropped, they cannot be sent: %s", exc)
            self._dropped += 1
        else:
            if self._dropped:
                logger.warning("batcher-* events are sent again, %d were dropped", self._dropped)
            self._dropped = 0

    def _connected(self) -> Any:
        if self._pid != os.getpid():  # a connection of the parent is the parent's
            self._pid, self._connection, self._dispatcher = os.getpid(), None, None
        if self._dispatcher is None:
            self._connection = self.app.connection_for_write()
            self._connection.ensure_connection(
                max_retries=1, interval_start=0.1, timeout=_CONNECT_TIMEOUT
            )
            self._dispatcher = self.app.events.Dispatcher(
                self._connection, hostname=self.node or anon_nodename(), buffer_while_offline=False
            )
        return self._dispatcher

    def _close(self) -> None:
        connection, self._connection, self._dispatcher = self._connection, None, None
        if connection is not None:
            connection.collect()


def _remember_node(sender: Any, **_: Any) -> None:
    """Events of a worker's processes have its name."""
    EventSender.node = str(sender)


signals.celeryd_init.connect(_remember_node, weak=False)
atexit.register(sending.finish)
