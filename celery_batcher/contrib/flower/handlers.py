"""What our handlers have in common: where blocking calls run, errors, security headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from celery import Celery
from flower.options import options
from tornado.web import HTTPError

from ...batcher import Batcher
from ...errors import BatcherError, NoBatcherError
from ...tasks import the_batcher

T = TypeVar("T")

_executor = ThreadPoolExecutor(4, thread_name_prefix="celery_batcher:flower")


async def apart(act: Callable[[], T]) -> T:
    """Run what asks the store beside Flower's loop, and not in Flower's own threads."""
    try:
        return await asyncio.get_running_loop().run_in_executor(_executor, act)
    except ConnectionError as exc:  # the store or the broker, and the error says which
        raise HTTPError(503, "%s", exc) from exc
    except BatcherError as exc:
        raise HTTPError(400, "%s", exc) from exc


def named(app: Celery, name: str) -> Batcher:
    """The batcher of a page or an action; 404 when there is none."""
    try:
        return the_batcher(app, name)
    except NoBatcherError as exc:
        raise HTTPError(404, "%s", exc) from exc


def refused(*, unauthenticated_api: bool) -> str:
    """Why buttons do nothing here; "" when they may act for whoever has logged in."""
    if options.read_only:
        return "Flower is in read-only mode"
    if not (options.basic_auth or options.auth or unauthenticated_api):
        return (
            "Flower asks nobody to log in, so nobody may act: start it with --basic-auth or --auth"
        )
    return ""
