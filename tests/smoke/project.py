"""The app module of the workers: pytest-celery replaces the three lines that say None or Celery."""

from __future__ import annotations

from celery import Celery

imports = None

app = Celery("celery_test_app")
config = None

if config:
    app.config_from_object(config)
if "build" in globals():  # by what the first of them has become
    batcher = globals()["build"](app)
