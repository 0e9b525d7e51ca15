"""What a scrape says, read as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery
from prometheus_client.parser import text_string_to_metric_families

from celery_batcher.contrib.prometheus import exposition


def scrape(app: Celery) -> Callable[..., float]:
    """Scrape once; returns the sum of the samples of a name that have these labels."""
    body, content_type = exposition(app)
    assert content_type.startswith("text/plain")
    samples = [
        sample
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    ]

    def value(name: str, **labels: str) -> float:
        found = [
            one.value
            for one in samples
            if one.name == f"celery_batcher_{name}" and labels.items() <= one.labels.items()
        ]
        assert found, f"no celery_batcher_{name} with {labels}"
        return sum(found)

    return value
