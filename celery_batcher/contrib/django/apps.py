"""The Django app."""

from __future__ import annotations

from typing import Any, cast

from celery import Celery, current_app
from django.apps import AppConfig
from django.core import checks
from django.utils.module_loading import autodiscover_modules


class BatcherConfig(AppConfig):
    """Imports the module ``batches`` of every installed app, and registers the checks."""

    name = "celery_batcher.contrib.django"
    label = "celery_batcher"
    verbose_name = "Celery batcher"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """See the class."""
        from .checks import check_batchers, check_settings

        checks.register(check_settings, "celery_batcher")
        checks.register(check_batchers, "celery_batcher", deploy=True)
        autodiscover_modules("batches")


def celery_app() -> Celery:
    """The Celery app of the project: the current one."""
    app: Any = current_app
    return cast(Celery, app._get_current_object())
