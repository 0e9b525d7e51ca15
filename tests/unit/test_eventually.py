"""The helper that waits for other processes."""

from __future__ import annotations

import pytest

from eventually import eventually


def test_it_returns_the_first_true_result() -> None:
    results = iter([0, "", "ready"])

    assert eventually(lambda: next(results), interval=0) == "ready"


def test_it_retries_failed_assertions_until_they_hold() -> None:
    seen: list[int] = []

    def three_seen() -> None:
        seen.append(1)
        assert len(seen) == 3

    assert eventually(three_seen, interval=0) is None
    assert len(seen) == 3


def test_it_fails_with_the_last_error() -> None:
    def never() -> None:
        raise AssertionError("still 2 of 3")

    with pytest.raises(AssertionError, match="still 2 of 3") as caught:
        eventually(never, timeout=0)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_it_fails_with_the_last_false_result() -> None:
    with pytest.raises(AssertionError, match="it returned 0"):
        eventually(lambda: 0, timeout=0)


def test_other_errors_are_raised_at_once() -> None:
    with pytest.raises(KeyError):
        eventually(lambda: {}["missing"], timeout=60)
