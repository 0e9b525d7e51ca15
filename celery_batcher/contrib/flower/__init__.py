"""A tab in Flower: every batcher with live plots, its dead letters, and buttons.

In ``flowerconfig.py``, beside where Flower is started::

    from celery_batcher.contrib.flower import install

    install()

See docs/flower.md for what the pages show, and who may press the buttons.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import click
from celery import Celery, current_app

try:
    from flower import urls
    from tornado.web import URLSpec, url
except ImportError as exc:  # pragma: no cover
    raise ImportError('Flower is not installed: pip install "celery-batcher[flower]"') from exc

from ...errors import ConfigurationError
from .. import prometheus
from .actions import Flush, Pause, PurgeDead, RedriveDead, Resume
from .history import Sampler
from .loader import PagesLoader
from .views import Assets, BatcherData, BatcherPage, BatchersData, BatchersPage, Dead, Metrics, Why

__all__ = ["install"]

logger = logging.getLogger("celery_batcher")

_NAME = r"([A-Za-z0-9_-]+)"
_TAB = "batchers"


def install(app: Celery | None = None) -> None:
    """Add the tab, its pages and the metrics to Flower; again, it does nothing.

    Call it in ``flowerconfig.py``: that runs before Flower is built.

    Args:
        app: the Celery app of the batchers; by default the one that ``celery -A`` names.

    Raises:
        ConfigurationError: Flower's ``template_loader`` is another extension's.
    """
    if any(isinstance(one, URLSpec) and one.name == _TAB for one in urls.handlers):
        return
    if "template_loader" in urls.settings:
        raise ConfigurationError(
            "Flower's setting template_loader is taken: by another extension in flowerconfig.py?"
        )
    urls.settings["template_loader"] = PagesLoader(urls.settings["template_path"])
    app = app or _the_app()
    sampler = Sampler(app)
    urls.handlers[:0] = _handlers(sampler)  # the first that fits answers
    sampler.start()
    prometheus.install(app)


def _the_app() -> Celery:
    """The app of the command ``celery -A app flower`` that reads the configuration."""
    context: Any = click.get_current_context(silent=True)
    command: Any = getattr(context, "obj", None)
    return cast(Celery, getattr(command, "app", None) or current_app)


def _handlers(sampler: Sampler) -> list[URLSpec]:
    of = {"sampler": sampler}
    assets = {"path": str(Path(__file__).parent / "static")}
    return [
        url(r"/batchers", BatchersPage, of, name=_TAB),
        url(r"/batchers/data", BatchersData, of, name="batchers-data"),
        url(r"/batchers/static/(.+)", Assets, assets, name="batchers-static"),
        url(rf"/batcher/{_NAME}", BatcherPage, of, name="batcher"),
        url(rf"/batcher/{_NAME}/data", BatcherData, of, name="batcher-data"),
        url(rf"/batcher/{_NAME}/why", Why, of, name="batcher-why"),
        url(rf"/batcher/{_NAME}/dead", Dead, of, name="batcher-dead"),
        url(r"/metrics", Metrics),
        url(rf"/api/batcher/pause/{_NAME}", Pause),
        url(rf"/api/batcher/resume/{_NAME}", Resume),
        url(rf"/api/batcher/flush/{_NAME}", Flush),
        url(rf"/api/batcher/redrive/{_NAME}", RedriveDead),
        url(rf"/api/batcher/purge/{_NAME}", PurgeDead),
    ]
