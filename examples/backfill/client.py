"""Client of the document store, with one open connection per worker process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import httpx
from celery.signals import worker_process_init

from pricing import Document


class OverCapacityError(Exception):
    """The store answered 429: nothing was written, try again after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


def write(document: Document) -> None:
    _post("/documents", document)


def bulk_write(documents: Sequence[Document]) -> None:
    """Write all of the documents, or none."""
    _post("/documents/bulk", documents)


def _post(path: str, body: Any) -> None:
    response = _connection().post(path, json=body)
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        raise OverCapacityError(float(response.headers["Retry-After"]))
    response.raise_for_status()


@cache
def _connection() -> httpx.Client:
    return httpx.Client(base_url=os.environ["STORE_URL"], timeout=10.0)


@worker_process_init.connect
def connect(**_: object) -> None:
    """Connect before there is work: the first write of a process is then as quick as the next."""
    _connection().get("/stats").raise_for_status()
