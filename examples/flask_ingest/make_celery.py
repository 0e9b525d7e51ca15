"""For `celery -A make_celery`: the Celery app of the Flask app."""

from __future__ import annotations

from web import create_app

celery_app = create_app().extensions["celery"]
