"""What Flower runs before it starts: it gets the page of the batchers and their metrics."""

from __future__ import annotations

from celery_batcher.contrib.flower import install

install()
