"""Actions on a batcher, as Flower has them: POST only, authenticated, none in read-only mode."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from flower.api import BaseApiHandler
from tornado.web import HTTPError, RequestHandler, authenticated

from ...batcher import Batcher
from ...dead_letters import DeadLetters
from .handlers import apart, named

logger = logging.getLogger("celery_batcher")


class Action(BaseApiHandler):
    """An action on a batcher, for whoever Flower lets act."""

    said = ""

    def check_xsrf_cookie(self) -> None:
        """Refuse other sites, as Flower does, and always ask for the token of our pages."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Let a browser send what it logged in to the page with: it asks for that by path."""
        if status_code == HTTPStatus.UNAUTHORIZED and self.application.options.basic_auth:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        super().write_error(status_code, **kwargs)

    @authenticated
    async def post(self, name: str) -> None:
        """Act, and say what was done."""
        if self.application.options.read_only:
            raise HTTPError(403, "Flower is in read-only mode")
        batcher = named(self.capp, name)
        count = await apart(self.act(batcher))
        who = self.current_user if isinstance(self.current_user, str) else self.request.remote_ip
        logger.info("%s: %s by %s in Flower", name, self.said, who)
        self.write({"message": f"{name}: {self.said}" + ("" if count is None else f": {count}")})

    def act(self, batcher: Batcher) -> Callable[[], int | None]:
        """What to do."""
        raise NotImplementedError


class Pause(Action):
    """Pause it until it is resumed, or for ``seconds``."""

    said = "paused"

    def act(self, batcher: Batcher) -> Callable[[], None]:
        seconds = self.get_argument("seconds", None, type=float)
        return partial(batcher.pause, seconds)


class Resume(Action):
    """End a pause or a drain."""

    said = "resumed"

    def act(self, batcher: Batcher) -> Callable[[], None]:
        return batcher.resume


class Flush(Action):
    """Flush it as soon as possible."""

    said = "a flush was asked for"

    def act(self, batcher: Batcher) -> Callable[[], None]:
        return batcher.flush


class _OfDead(Action):
    """An action on dead letters of ``watcher``: those of each ``id``, or with ``all=1`` all."""

    def chosen(self, batcher: Batcher) -> tuple[DeadLetters, list[str]]:
        """The watcher's dead letters, and the ids of some; none for all."""
        watcher = batcher.watchers.get(self.get_argument("watcher", "", escape=False))
        if watcher is None:
            raise HTTPError(404, "No such watcher in this process")
        ids = self.get_arguments("id", strip=False)
        if bool(ids) == (self.get_argument("all", "") == "1"):
            raise HTTPError(400, "Either ids or all=1")
        return watcher.dead_letters, ids


class RedriveDead(_OfDead):
    """Enqueue dead letters again."""

    said = "dead letters redriven"

    def act(self, batcher: Batcher) -> Callable[[], int]:
        letters, ids = self.chosen(batcher)
        return partial(letters.redrive, *ids)


class PurgeDead(_OfDead):
    """Remove dead letters for good."""

    said = "dead letters purged"

    def act(self, batcher: Batcher) -> Callable[[], int]:
        letters, ids = self.chosen(batcher)
        return partial(letters.purge, *ids)
