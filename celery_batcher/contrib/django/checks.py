"""What `manage.py check` says: settings always; servers and workers with ``--deploy``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning

from ...checks import Problem
from ...config import BATCHER_OPTIONS, SETTINGS, check_value
from ...errors import BatcherError, ConfigurationError
from ...tasks import batchers
from .apps import celery_app

PREFIX = "CELERY_BATCHER_"
_KINDS: dict[str, type[CheckMessage]] = {"error": Error, "warning": Warning, "info": Info}
_KNOWN = {PREFIX + name.upper() for name in BATCHER_OPTIONS} | {
    f"CELERY_{name.upper()}" for name in SETTINGS
}


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Settings that are unknown or wrong, and a store that is missing. It asks no server."""
    found = [*_unknown(), *_wrong()]
    return found or [*_unconnected()]


def check_batchers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What `Batcher.check` finds: it asks store, broker and workers."""
    messages: list[CheckMessage] = []
    for batcher in batchers(celery_app()):
        try:
            problems = batcher.check()
        except BatcherError as exc:
            problems = [Problem("warning", "celery_batcher.W101", f"not checked: {exc}")]
        messages += [
            _KINDS[one.level](one.message, id=one.code, obj=batcher.name) for one in problems
        ]
    return messages


def _given() -> Iterator[str]:
    return (name for name in dir(settings) if name.startswith(PREFIX))


def _unknown() -> Iterator[CheckMessage]:
    for name in _given():
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, 1)
            yield Error(
                f"there is no setting {name}",
                hint=f"Did you mean {near[0]}?" if near else None,
                id="celery_batcher.E101",
            )


def _wrong() -> Iterator[CheckMessage]:
    for name in _given():
        option = BATCHER_OPTIONS.get(name.removeprefix(PREFIX).lower())
        value = getattr(settings, name)
        if option is not None and value is not None:
            try:
                check_value(option, name, value, "settings")
            except ConfigurationError as exc:
                yield Error(str(exc), id="celery_batcher.E102")


def _unconnected() -> Iterator[CheckMessage]:
    for batcher in batchers(celery_app()):
        try:
            _ = batcher.connections
        except ConfigurationError as exc:
            yield Error(str(exc), id="celery_batcher.E103", obj=batcher.name)
