"""Waiting for what another process will do, without a bare sleep in a test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    check: Callable[[], T],
    *,
    timeout: float = 10.0,
    interval: float = 0.02,
    retry: tuple[type[Exception], ...] = (AssertionError,),
) -> T:
    """Call `check` until it passes, and return what it returned.

    A check passes unless it returns something false or raises an error of `retry`. None passes, as
    a function of assertions returns it; so write `lambda: client.get(key) is not None`.

    Raises:
        AssertionError: It did not pass within `timeout` seconds; caused by its last error.
    """
    deadline = time.monotonic() + timeout
    while True:
        error: Exception | None = None
        result: T | str = "nothing"
        try:
            result = check()
            if result is None or result:
                return result
        except retry as exc:
            error = exc
        if time.monotonic() >= deadline:
            last = f"{type(error).__name__}: {error}" if error else f"it returned {result!r}"
            raise AssertionError(f"not within {timeout:g} s; at last {last}") from error
        time.sleep(interval)
