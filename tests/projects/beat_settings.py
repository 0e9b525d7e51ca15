"""The settings of the Django shop (examples/django_orders), with django-celery-beat."""

from __future__ import annotations

from shop.settings import *  # noqa: F403 - that is how Django's settings build on others
from shop.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_beat"]
CELERY_BEAT_MAX_LOOP_INTERVAL = 1  # so that rows that a test adds are seen soon
