"""What really happened, written down by the processes themselves in databases of their own.

Neither Celery nor the batcher takes part in this: a handler's operation has been executed once its
transaction is committed here. SQLite survives SIGKILL of its writer whole or not at all, and a
process writes only to the file that bears its own pid, so that a stopped one holds up no other.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TABLE = (
    "CREATE TABLE IF NOT EXISTS fact"
    " (id INTEGER PRIMARY KEY, at REAL, kind TEXT, operation TEXT, batch TEXT)"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact. ``at`` is the machine's monotonic clock, ``group`` the process group of ``pid``.

    Kinds: of producers ``returned`` (enqueue did), ``refused``, ``uncertain``; of handlers
    ``started``, ``executed`` and ``failed``; ``ended`` for a whole batch, whose ``operation`` is
    then what became of it.
    """

    at: float
    kind: str
    operation: str
    batch: str
    pid: int
    group: int


class FactBook:
    """Writes facts of this process; each call is one transaction."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._pid = 0

    def add(self, kind: str, operations: Iterable[str], batch: str = "") -> None:
        """Write facts of one kind down; they are facts once this returns."""
        now = time.monotonic()
        rows = [(now, kind, operation, batch) for operation in operations]
        with self._lock:
            database = self._open()
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO fact (at, kind, operation, batch) VALUES (?, ?, ?, ?)", rows
            )
            database.execute("COMMIT")

    def close(self) -> None:
        """Let the database go."""
        if self._database is not None:
            self._database.close()

    def _open(self) -> sqlite3.Connection:
        if self._database is None or self._pid != os.getpid():
            self._pid = os.getpid()
            path = self._directory / f"{os.getpgid(0)}-{self._pid}.facts"
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # The page cache outlives a process: only a crash of the machine would need more.
            self._database.execute("PRAGMA synchronous=OFF")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(_TABLE)
        return self._database


class Facts:
    """All facts in a directory, read as they grow."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[Path, sqlite3.Connection] = {}
        self._read: dict[Path, int] = {}
        self.all: list[Fact] = []

    def read(self) -> list[Fact]:
        """The facts that came since the last call."""
        new = [fact for path in self._directory.glob("*.facts") for fact in self._of(path)]
        self.all += new
        return new

    def _of(self, path: Path) -> Iterator[Fact]:
        if path not in self._open:
            self._open[path] = sqlite3.connect(path, timeout=30.0)
        last = self._read.get(path, 0)
        query = "SELECT id, at, kind, operation, batch FROM fact WHERE id > ? ORDER BY id"
        try:
            rows = self._open[path].execute(query, (last,)).fetchall()
        except sqlite3.OperationalError:  # its writer has not made the table yet, or never did
            return
        group, pid = map(int, path.stem.split("-"))
        for id, at, kind, operation, batch in rows:
            self._read[path] = id
            yield Fact(at, kind, operation, batch, pid, group)

    def close(self) -> None:
        """Let the databases go."""
        for database in self._open.values():
            database.close()
        self._open.clear()
