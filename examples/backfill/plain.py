"""The back-fill in plain Celery: a task per document, or per 100, that backs off when refused."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from celery import Celery, Task

import client
from pricing import Document

BATCH_SIZE = 100

app = Celery("plain")
app.config_from_object("celeryconfig")


@app.task(bind=True, max_retries=None, queue="one-by-one")
def write_city(self: Task, city: Document) -> None:
    try:
        client.write(city)
    except client.OverCapacityError as refused:
        raise self.retry(exc=refused, countdown=backoff(refused)) from refused


@app.task(bind=True, max_retries=None, queue="by-hundreds")
def write_cities(self: Task, cities: Sequence[Document]) -> None:
    try:
        client.bulk_write(cities)
    except client.OverCapacityError as refused:
        raise self.retry(exc=refused, countdown=backoff(refused)) from refused


def backoff(refused: client.OverCapacityError) -> float:
    """What the store asks for, and up to as much again, lest all come back at once."""
    return refused.retry_after * random.uniform(1, 2)


def enqueue_one_by_one(cities: Iterable[Document]) -> None:
    for city in cities:
        write_city.delay(city)


def enqueue_by_hundreds(cities: Iterable[Document]) -> None:
    for batch in batches(cities):
        write_cities.delay(batch)


def batches(cities: Iterable[Document]) -> Iterator[list[Document]]:
    remaining = iter(cities)
    while batch := list(islice(remaining, BATCH_SIZE)):
        yield batch
