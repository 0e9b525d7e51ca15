"""What is done apart: in order, one after the other, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from celery_batcher.apart import Apart


def noting(into: list[int], number: int) -> Callable[[], None]:
    return lambda: into.append(number)


def test_acts_are_done_in_their_order_and_an_error_ends_only_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []
    apart = Apart()

    with caplog.at_level(logging.ERROR, "celery_batcher"):
        for act in (noting(done, 1), lambda: 1 // 0, noting(done, 3)):
            assert apart.add(act)
        apart.finish()

    assert done == [1, 3]
    assert "ZeroDivisionError" in caplog.text
    apart.add(noting(done, 4))
    apart.finish()
    assert done == [1, 3, 4]


def test_whoever_adds_does_not_wait_and_too_many_are_refused() -> None:
    done: list[int] = []
    begun, over = threading.Event(), threading.Event()
    apart = Apart(most=2)

    assert apart.add(lambda: (begun.set(), over.wait()))
    assert begun.wait(10)
    assert [apart.add(noting(done, number)) for number in range(3)] == [True, True, False]
    assert done == []

    over.set()
    apart.finish()
    assert done == [0, 1]
