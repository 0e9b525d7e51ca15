"""The command line: ``celery batcher ...``, a plugin of Celery's own."""
