"""Django: batchers found in every app, enqueued on commit, checked, and run from the admin.

    INSTALLED_APPS = [..., "celery_batcher.contrib.django"]

Modules `batches` of installed apps are imported at the start; settings are
``CELERY_BATCHER_<OPTION>``. It has no tables. See docs/django.md.
"""

from .commits import enqueue_many_on_commit, enqueue_on_commit

__all__ = ["enqueue_many_on_commit", "enqueue_on_commit"]
