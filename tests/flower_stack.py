"""A running system for the tests of the pages: worker with beat, and Flower in three ways."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from tornado.web import create_signed_value

from celery_batcher.embedded import EmbeddedServer
from celery_processes import CeleryProcess, Fleet

CONFIG = "from celery_batcher.contrib.flower import install\ninstall()\ninstall()\n"
LOGIN = {"username": "ops", "password": "secret"}
BASIC = "Basic " + base64.b64encode(b"ops:secret").decode()
SECRET = "a cookie's secret"
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
CONF = {"worker_send_task_events": True}
BATCHERS = {
    "cosmos": {"capacity": 200, "watchers": {"orders.write": {"max_batch_size": 50}}},
    "mail": {"hidden": "card", "watchers": {"mail.send": {"max_attempts": 1}}},
}


@dataclass(frozen=True)
class Flower:
    """A process of Flower: where it is, and what a browser has when it has logged in."""

    process: CeleryProcess
    url: str
    cookies: tuple[str, str] | None = None


@dataclass(frozen=True)
class Stack:
    """The running system. ``basic`` asks for a password; ``read_only`` for a login by OAuth, with
    a prefix of its addresses; ``unguarded`` for nothing."""

    server: EmbeddedServer
    fleet: Fleet
    basic: Flower
    read_only: Flower
    unguarded: Flower


@contextmanager
def running(directory: Path) -> Iterator[Stack]:
    """Start it, and end it."""
    with (
        EmbeddedServer() as server,
        Fleet(directory, broker=server.url, batchers=BATCHERS, conf=CONF) as fleet,
    ):
        worker = fleet.worker(beat=True, wait=False)
        basic, url = fleet.flower("--basic-auth=ops:secret", config=CONFIG)
        oauth = ["--auth=ops@example.com", f"--cookie-secret={SECRET}", "--oauth2-key=key"]
        read_only, prefixed = fleet.flower(
            *oauth, "--read-only", "--url-prefix=ops/flower", config=CONFIG
        )
        unguarded, open_url = fleet.flower(config=CONFIG)
        for process in (basic, read_only, unguarded):
            process.await_log("Visit me at")
        worker.await_log(" ready.")
        signed = create_signed_value(SECRET, "user", "ops@example.com").decode()
        yield Stack(
            server,
            fleet,
            Flower(basic, url),
            Flower(read_only, f"{prefixed}/ops/flower", ("user", signed)),
            Flower(unguarded, open_url),
        )


@dataclass(frozen=True)
class Answer:
    """What a server answers."""

    status: int
    text: str
    headers: Mapping[str, str]

    def json(self) -> dict[str, object]:
        """Its text as JSON."""
        return dict(json.loads(self.text))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: object) -> None:
        return None


def http(
    method: str, url: str, headers: Mapping[str, str] | None = None, **form: str | list[str]
) -> Answer:
    """Ask a server without a browser."""
    data = urlencode(form, doseq=True).encode() if method == "POST" else None
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=10) as answer:
            return Answer(answer.status, answer.read().decode(), answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), error.headers)
