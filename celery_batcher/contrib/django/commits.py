"""Operations that are enqueued when their transaction is committed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...watcher import Watcher

try:
    from django.db import transaction
except ImportError as exc:  # pragma: no cover
    raise ImportError('Django is not installed: pip install "celery-batcher[django]"') from exc


def enqueue_on_commit(
    watcher: Watcher,
    payload: Any,
    *,
    using: str | None = None,
    robust: bool = False,
    **options: Any,
) -> str:
    """Enqueue an operation when the transaction is committed; outside of one, at once.

    What is rolled back enqueues nothing. What is wrong with the operation is raised now; that
    there is no room for it, or that store or broker are away, when the transaction has been
    committed already: as with Celery's ``delay_on_commit``, the process may also die in between.
    A payload is read when the transaction is committed: change it no more.

    Args:
        watcher: whose operation it is.
        payload: what the handler needs.
        using: the database alias; by default Django's default database.
        robust: log what goes wrong after the commit instead of raising it, so that whatever else
            waits for the commit is done all the same; the operation is lost then.
        options: as for `Watcher.operation`: ``cost``, ``key``, ``priority``, ``id``, ...

    Returns:
        The operation's id.

    Raises:
        InvalidCostError, TooExpensiveError, PayloadError, ConfigurationError: it could never run.
    """
    operation = watcher.operation(payload, **options)
    watcher.batcher.encoder(watcher).one(operation)  # what cannot be enqueued is refused here

    def enqueue() -> None:  # no partial: Django logs the __qualname__ of what failed
        watcher.batcher.enqueue(operation)

    transaction.on_commit(enqueue, using=using, robust=robust)
    return operation.id


def enqueue_many_on_commit(
    watcher: Watcher,
    payloads: Iterable[Any],
    *,
    using: str | None = None,
    robust: bool = False,
    **options: Any,
) -> None:
    """Enqueue operations in bulk when the transaction is committed; outside of one, at once.

    The payloads are collected now and enqueued then, in pipelines; what is wrong with one of them
    is raised then.

    Args:
        watcher: whose operations they are.
        payloads: any iterable; all of it is kept until the commit.
        using: the database alias; by default Django's default database.
        robust: as for `enqueue_on_commit`.
        options: as for `Watcher.enqueue_many`.

    Raises:
        After the commit, what `Watcher.enqueue_many` raises.
    """
    collected = list(payloads)

    def enqueue() -> None:
        watcher.enqueue_many(collected, **options)

    transaction.on_commit(enqueue, using=using, robust=robust)
