"""Dead letters as their users see them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from celery_batcher import Batch, Batcher, Watcher
from in_memory import InMemory


@pytest.fixture
def batcher(site: InMemory) -> Batcher:
    return site.batcher(flush_mode="tick", dead_letter_retention=timedelta(days=1))


@pytest.fixture
def failing(batcher: Batcher) -> Watcher:
    """A watcher whose operations fail for good while their payload says so."""

    @batcher.watcher(name="work")
    def work(batch: Batch) -> None:
        for op in batch:
            if op.payload.get("bad"):
                batch.fail(op, "told to fail")

    return work


Bury = Callable[..., list[str]]


@pytest.fixture
def bury(site: InMemory, batcher: Batcher, failing: Watcher) -> Bury:
    def dead(number: int, **options: Any) -> list[str]:
        ids = [failing.enqueue({"bad": True, "n": n}, **options) for n in range(number)]
        site.tick(batcher)
        return ids

    return dead


def test_a_letter_says_what_it_was_and_why_it_is_dead(
    site: InMemory, failing: Watcher, bury: Bury
) -> None:
    before = site.clock.now_ms() / 1000
    (id,) = bury(1, cost=3, key="tenant", priority="high")

    (letter,) = failing.dead_letters

    assert (letter.id, letter.cost, letter.key, letter.priority) == (id, 3, "tenant", "high")
    assert (letter.attempts, letter.reason) == (1, "told to fail")
    assert letter.payload == {"bad": True, "n": 0}
    assert letter.died_at == datetime.fromtimestamp(before, timezone.utc)
    assert letter.enqueued_at <= letter.died_at


def test_a_letter_of_an_error_has_its_traceback(site: InMemory, batcher: Batcher) -> None:
    @batcher.watcher(name="raising", dont_autoretry_for=(LookupError,))
    def raising(batch: Batch) -> None:
        raise KeyError("no such customer")

    raising.enqueue({})
    site.tick(batcher)

    (letter,) = raising.dead_letters
    assert "Traceback" in letter.reason
    assert "KeyError: 'no such customer'" in letter.reason


def test_there_are_as_many_as_status_counts_and_all_are_read(
    batcher: Batcher, failing: Watcher, bury: Bury
) -> None:
    ids = bury(250)

    assert [letter.id for letter in failing.dead_letters] == ids
    assert len(failing.dead_letters) == batcher.status().dead == 250
    assert failing.dead_letters


def test_some_or_all_are_redriven(
    site: InMemory, batcher: Batcher, failing: Watcher, bury: Bury
) -> None:
    ids = bury(130)

    assert failing.dead_letters.redrive(ids[3], ids[7], "unknown") == 2
    assert batcher.operations_in_buffer() == 2
    assert failing.dead_letters.redrive() == 128
    assert batcher.needs_capacity() == 130

    site.tick(batcher)
    assert sorted(letter.id for letter in failing.dead_letters) == sorted(ids)


def test_some_or_all_are_purged(batcher: Batcher, failing: Watcher, bury: Bury) -> None:
    ids = bury(130)

    assert failing.dead_letters.purge(ids[0]) == 1
    assert failing.dead_letters.purge() == 129
    assert (len(failing.dead_letters), batcher.status().dead) == (0, 0)
    assert failing.dead_letters.redrive() == 0


def test_a_payload_that_cannot_be_read_is_none(
    site: InMemory, batcher: Batcher, failing: Watcher
) -> None:
    site.app.conf.batcher_serializer = "pickle"
    site.app.conf.accept_content = ["json", "pickle"]
    failing.enqueue({"bad": True})
    site.app.conf.accept_content = ["json"]
    site.tick(batcher)

    (letter,) = failing.dead_letters
    assert letter.payload is None
    assert "cannot be read" in letter.reason


def test_the_audit_retires_old_letters_and_says_so(
    site: InMemory,
    batcher: Batcher,
    failing: Watcher,
    bury: Bury,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bury(2)
    site.clock.advance(86_000)
    bury(1)
    site.clock.advance(1000)

    batcher.audit()

    assert len(failing.dead_letters) == 1
    assert "2 dead letters were too old and are gone" in caplog.text


def test_a_watcher_has_no_more_than_it_may(site: InMemory, batcher: Batcher) -> None:
    @batcher.watcher(name="bounded", max_dead_letters=2)
    def bounded(batch: Batch) -> None:
        for op in batch:
            batch.fail(op, "no")

    bounded.enqueue_many([{}] * 5)
    site.tick(batcher)

    status = batcher.status()
    assert (len(bounded.dead_letters), status.dead, status.dead_dropped) == (2, 2, 3)
