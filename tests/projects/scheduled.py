"""Settings of a Django project whose beat keeps its schedule in the database."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_celery_beat",
    "celery_batcher.contrib.django",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SCHEDULED_DATABASE"],
        "OPTIONS": {"timeout": 20},
    }
}
