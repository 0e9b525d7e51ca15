"""The pages, and the figures that they ask for every second."""

from __future__ import annotations

import json
import time
from dataclasses import astuple
from itertools import islice
from typing import Any

from flower.views import BaseHandler
from prometheus_client import generate_latest
from tornado.web import StaticFileHandler, authenticated

from ...batcher import Batcher
from ...dead_letters import DeadLetter
from ...plain import plain
from ...tasks import batchers
from ...watcher import Watcher
from .handlers import apart, named, refused
from .history import History, Sampler

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)
_MOST_LETTERS = 100
_MOST_TEXT = 10_000
_MOST_WATCHERS = 20


class Assets(StaticFileHandler):
    """Scripts and styles; a browser asks each time whether they are still the same."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class Metrics(BaseHandler):
    """Flower's page of metrics, on which a store of ours must not keep all others waiting."""

    async def get(self) -> None:
        self.application.purge_offline_worker_metrics()
        body = await apart(generate_latest)
        self.set_header("Content-Type", "text/plain")
        self.write(body)


class _View(BaseHandler):
    """A view that Flower shows to whoever has logged in, if it asks anybody to."""

    def initialize(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def page(self, template: str, **values: Any) -> None:
        """Show a page, which may load nothing from elsewhere and run no script but ours."""
        self.set_header("Content-Security-Policy", _POLICY)
        why_not = refused(unauthenticated_api=self.unauthenticated_api)
        self.render(template, refused=why_not, **values)

    def say(self, **values: Any) -> None:
        """Answer with figures."""
        self.set_header("Cache-Control", "no-store")
        self.write(plain(values))


class BatchersPage(_View):
    """All batchers."""

    @authenticated
    def get(self) -> None:
        self.page("batchers.html")


class BatchersData(_View):
    """A row for each batcher."""

    @authenticated
    def get(self) -> None:
        names = sorted(one.name for one in batchers(self.capp))
        self.say(
            at=time.time(),
            batchers=[
                _known(self.sampler.history(name))
                | {"name": name, "page": self.reverse_url("batcher", name)}
                for name in names
            ],
        )


class BatcherPage(_View):
    """One batcher."""

    @authenticated
    def get(self, name: str) -> None:
        named(self.capp, name)
        self.page("batcher.html", name=name)


class BatcherData(_View):
    """The figures of a batcher, and its samples after the time ``after``."""

    @authenticated
    def get(self, name: str) -> None:
        named(self.capp, name)
        history = self.sampler.history(name)
        after = self.get_argument("after", "0", type=float)
        self.say(
            at=time.time(),
            **_known(history),
            meters=history.meters,
            samples=[astuple(one) for one in history.samples(after)],
            batches=[
                {**plain(one), "page": self.reverse_url("task", one.id)} for one in history.batches
            ],
        )


class Why(_View):
    """Why operations of each watcher wait, and for how long the whole buffer will."""

    @authenticated
    async def get(self, name: str) -> None:
        self.say(**await apart(lambda: _why(named(self.capp, name))))


class Dead(_View):
    """The oldest dead letters of each watcher."""

    @authenticated
    async def get(self, name: str) -> None:
        self.say(watchers=await apart(lambda: _dead(named(self.capp, name))))


def _known(history: History) -> dict[str, Any]:
    return {
        "status": history.status,
        "answered_at": history.answered_at,
        "silent_for": history.silent_for,
        "error": history.error,
    }


def _why(batcher: Batcher) -> dict[str, Any]:
    explained = (batcher.explain(name) for name in islice(batcher.watchers, _MOST_WATCHERS))
    rows = [
        {
            "watcher": one.watcher,
            "state": one.state,
            "age": one.age,
            "reasons": [reason.text for reason in one.reasons],
            "earliest": one.earliest,
        }
        for one in explained
        if one.state != "idle"
    ]
    return {"watchers": rows, "eta": batcher.eta()}


def _dead(batcher: Batcher) -> list[dict[str, Any]]:
    rows = []
    for watcher in batcher.watchers.values():
        letters = [_letter(watcher, one) for one in islice(watcher.dead_letters, _MOST_LETTERS)]
        if letters:
            rows.append({"watcher": watcher.name, "letters": letters})
    return rows


def _letter(watcher: Watcher, letter: DeadLetter) -> dict[str, Any]:
    payload = plain(watcher.batcher.shown(letter.payload))
    text = json.dumps(payload, ensure_ascii=False, indent=1)
    if len(text) > _MOST_TEXT:
        text = f"{text[:_MOST_TEXT]}\n... {len(text) - _MOST_TEXT} more characters"
    return {**plain(letter), "payload": text}
