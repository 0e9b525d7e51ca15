"""A run of a back-fill, in one process: its lease, its chunks, and what it waits for."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .config import checked_seconds, milliseconds
from .errors import BackfillRunningError, ConfigurationError, StoreUnavailableError
from .events import logger
from .operation import new_id
from .publishers.base import Outgoing
from .rows import Place, Row, chunks, rows_behind
from .store.backfills import BackfillState, Chunk
from .store.base import Admission

if TYPE_CHECKING:
    from .backfill import Backfill

_FIRST_WAIT, _LONGEST_WAIT = 0.01, 1.0
_WAITS_FOR = {"full": "buffer", "paused": "batcher", "draining": "drain", "held": "pause"}
_MAX_ERROR = 500


class Run:
    """What a process does that runs a back-fill."""

    def __init__(
        self, backfill: Backfill, *, again: bool, max_time: float | timedelta | None
    ) -> None:
        self._backfill = backfill
        self._again = again
        self._clock = backfill.batcher.clock
        self._store = backfill.batcher.store
        self._token = new_id()
        self._lease_ms = milliseconds(backfill.lease_time)
        seconds = None if max_time is None else checked_seconds(max_time, "max_time")
        self._ends_at = None if seconds is None else self._clock.monotonic() + seconds

    def begin(self) -> bool:
        """Take the right to run; False: another has it, or the run before is complete."""
        self._backfill.batcher.check_running()
        return self._take()

    def _take(self, *, keep: bool = False) -> bool:
        one = self._backfill
        owner = f"{socket.gethostname()}:{os.getpid()}"
        return self._store.take_backfill(
            one.name,
            one.watcher.name,
            self._token,
            self._lease_ms,
            owner,
            again=self._again,
            keep=keep,
        )

    def feed(self) -> Generator[tuple[BackfillState, str], None, None]:
        """Bring all rows; after each chunk the state, and while rows wait, what they wait for."""
        with self._kept():
            state = self._backfill.state()
            self._began = self._clock.monotonic() - state.now_ms / 1000
            place = Place(state.chunk, state.checkpoint, state.skip, state.total)
            if place.total is None:
                place.total = _count(self._backfill)
            for chunk in self._chunks(place):
                for waits_for in self._bring(chunk):
                    yield self._now(state), waits_for
                    if waits_for and self._over():
                        return
                state = replace(
                    state,
                    rows=state.rows + chunk.rows,
                    chunk=chunk.number,
                    checkpoint=chunk.checkpoint,
                    skip=chunk.skip,
                    total=chunk.total,
                )
                yield self._now(state), ""
                if self._over():
                    return
            self._store.leave_backfill(self._backfill.name, self._token, done=True)

    def _now(self, state: BackfillState) -> BackfillState:
        """The state at this moment, while the lease stands."""
        now_ms = round((self._clock.monotonic() - self._began) * 1000)
        return replace(state, now_ms=now_ms, until_ms=now_ms + self._lease_ms)

    def _over(self) -> bool:
        return self._ends_at is not None and self._clock.monotonic() >= self._ends_at

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep the lease however long rows take, and give it back whatever happens."""
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(self._backfill.lease_time / 3):
                try:
                    if not self._take(keep=True):
                        return  # the next chunk is refused
                except StoreUnavailableError as exc:
                    logger.warning("back-fill %s cannot keep its lease: %s", self._name, exc)

        keeper = threading.Thread(target=keep, name=f"backfill-{self._name}", daemon=True)
        keeper.start()
        error = ""
        try:
            yield
        except Exception as exc:
            error = f"{type(exc).__name__}: {exc}"[:_MAX_ERROR]
            raise
        finally:
            ended.set()
            keeper.join()
            self._leave(error)

    @property
    def _name(self) -> str:
        return self._backfill.name

    def _leave(self, error: str) -> None:
        try:
            self._store.leave_backfill(self._name, self._token, error=error)
        except StoreUnavailableError as exc:
            logger.warning("back-fill %s stays leased for a while: %s", self._name, exc)

    def _chunks(self, place: Place) -> Iterator[Chunk]:
        one = self._backfill
        encoder = one.batcher.encoder(one.watcher)

        def encode(row: Row) -> tuple[int, bytes]:
            operation = one.watcher.operation(
                row.payload,
                cost=row.cost,
                key=row.key,
                priority=row.priority or one.priority,
                batchable=row.batchable,
                id=row.id,
                dedupe_key=row.dedupe_key,
                dedupe_for=row.dedupe_for,
            )
            cost, *_ = encoder.check(operation.cost)
            return cost, encoder.one(operation, registered=row.id is not None)

        rows = rows_behind(one.rows(place.value), place.skip)
        most = min(one.chunk, self._most())
        yield from chunks(rows, place, encode, most=most, clock=self._clock)

    def _most(self) -> int:
        """Operations that the buffer may hold with these rows."""
        return min(self._backfill.max_waiting, int(self._backfill.batcher.option("buffer_size")))

    def _bring(self, chunk: Chunk) -> Iterator[str]:
        """Bring a chunk into the index; while it is refused, say why, and wait a little longer."""
        batcher, wait = self._backfill.batcher, _FIRST_WAIT
        if batcher.connections.eager:
            batcher.send([self._message(chunk)])
            chunk = replace(chunk, entries=b"", cost=0)
        while True:
            batcher.check_running()
            answer = self._store.fill(
                self._name,
                self._token,
                self._lease_ms,
                self._backfill.watcher.name,
                chunk,
                self._most(),
            )
            if answer == "taken":
                if chunk.entries:
                    batcher.announce_rows(self._message(chunk))
                return
            if answer == "lost":
                raise self._lost()
            yield _WAITS_FOR[answer]
            left = (
                _LONGEST_WAIT if self._ends_at is None else self._ends_at - self._clock.monotonic()
            )
            self._clock.wait(threading.Event(), max(0.0, min(wait, left)))
            wait = min(2 * wait, _LONGEST_WAIT)

    def _message(self, chunk: Chunk) -> Outgoing:
        """The rows of a chunk as a message."""
        admission = Admission(new_id(), self._backfill.watcher.name, chunk.rows, chunk.cost)
        return Outgoing(admission, chunk.entries)

    def _lost(self) -> BackfillRunningError:
        from .backfill import running

        return running(self._backfill.state())


def _count(backfill: Backfill) -> int | None:
    """How many rows there are, as the option says."""
    total = backfill.total() if callable(backfill.total) else backfill.total
    given: Any = total
    if given is not None and (type(given) is not int or given < 0):
        raise ConfigurationError(f"back-fill {backfill.name}: total={total!r}, but it is a number")
    return total
