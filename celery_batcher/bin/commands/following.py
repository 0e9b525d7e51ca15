"""Commands that go on: metrics for Prometheus, events as they happen."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from ..failures import USAGE, Failure, broker_away
from ..site import Site, as_json, leaf, optional_name

_AGAIN = 2.0
_EVERYWHERE = frozenset(
    {"type", "timestamp", "hostname", "pid", "clock", "utcoffset", "local_received"}
)


@leaf("metrics")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve them on this port, until Ctrl-C."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
def metrics(site: Site, port: int | None, host: str) -> None:
    """Print or serve metrics for Prometheus."""
    site.batchers()
    try:
        from ...contrib import prometheus
    except ImportError as exc:
        raise Failure(str(exc), USAGE) from exc
    if port is None:
        click.echo(prometheus.exposition(site.app)[0], nl=False)
    else:
        _serve(site, prometheus, host, port)


def _serve(site: Site, prometheus: Any, host: str, port: int) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    prometheus.install(site.app, registry=registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as exc:
        raise Failure(f"cannot listen on {host}:{port}: {exc}", USAGE) from exc
    site.note(f"metrics at http://{host}:{server.server_port}/metrics, until Ctrl-C")
    try:
        thread.join()
    except KeyboardInterrupt:
        server.shutdown()


@leaf("events")
@optional_name
@as_json
def events(site: Site, name: str | None, as_json: bool) -> None:
    """Follow batcher-* events, until Ctrl-C.

    Of all batchers, or of NAME. With --json each line is an object. They are sent where
    batcher_send_events is set.
    """
    from kombu.exceptions import OperationalError

    batchers = site.batchers() if name is None else [site.batcher(name)]
    if not any(batcher.option("send_events") for batcher in batchers):
        site.note("batcher_send_events is off here: what has it off, too, sends no events")
    wanted = {batcher.name for batcher in batchers}

    def handle(event: Mapping[str, Any]) -> None:
        if str(event.get("type", "")).startswith("batcher-") and event.get("batcher") in wanted:
            click.echo(_as_json(event) if as_json else _as_line(event))

    begun = False
    try:
        while True:
            try:
                with site.app.connection_for_read() as connection:
                    connection.ensure_connection(max_retries=1, timeout=5.0)
                    receiver = site.app.events.Receiver(connection, handlers={"*": handle})
                    if not begun:
                        site.note("following events, until Ctrl-C")
                    begun = True
                    receiver.capture(limit=None, timeout=None, wakeup=False)
            except (OperationalError, OSError) as exc:
                if not begun:
                    raise
                site.note(f"{broker_away(site.app, exc)} Trying again.")
                threading.Event().wait(_AGAIN)
    except KeyboardInterrupt:
        return


def _as_json(event: Mapping[str, Any]) -> str:
    from ...plain import plain

    return json.dumps(plain(event))


def _as_line(event: Mapping[str, Any]) -> str:
    """The time, what happened, and its fields."""
    from ..printable import printable

    at = datetime.fromtimestamp(float(event.get("timestamp") or 0)).astimezone()
    fields = {key: value for key, value in event.items() if key not in _EVERYWHERE}
    batcher, watcher = fields.pop("batcher", ""), fields.pop("watcher", "")
    what = str(event["type"]).removeprefix("batcher-")
    said = [f"{key}={_short(value)}" for key, value in fields.items() if value not in (None, "")]
    line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {what:9} {batcher} {watcher} "
    return printable(line + " ".join(said))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
