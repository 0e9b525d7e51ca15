"""Connections of publishers: kept for the next call, never shared, never across a fork."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What a pool keeps."""

    def close(self) -> None:
        """Let it go."""


_T = TypeVar("_T", bound=Closable)


class Pool(Generic[_T]):
    """As many connections as there are concurrent callers; one that failed is closed."""

    def __init__(self, connect: Callable[[], _T]) -> None:
        self._connect = connect
        self._idle: deque[_T] = deque()
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @contextmanager
    def connection(self) -> Iterator[_T]:
        """A connection for one caller."""
        with self._lock:
            if self._pid != os.getpid():
                self._idle, self._pid = deque(), os.getpid()
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
