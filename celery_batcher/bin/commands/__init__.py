"""The commands of ``celery batcher``, by what they are for."""
