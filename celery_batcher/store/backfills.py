"""What a store keeps of back-fills, and what crosses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class BackfillState:
    """A back-fill as the store has it. Times are the store's, in milliseconds; 0: never.

    Attributes:
        run: number of its newest run, from 1; 0: none began.
        done: whether that run is complete.
        chunk: chunks taken in this run.
        rows: rows taken in this run.
        checkpoint: where to go on, as JSON; "" is the beginning.
        skip: rows behind the checkpoint that are taken already.
        total: rows of the run, as was said; None: unknown.
        owner, until_ms, since_ms, since_rows: who runs it, until when unless it is kept, since when
            and from how many rows on.
        fed_ms: when rows were last taken.
        error: what ended the run before, if that was an error.
    """

    name: str
    now_ms: int
    watcher: str = ""
    run: int = 0
    done: bool = False
    chunk: int = 0
    rows: int = 0
    checkpoint: str = ""
    skip: int = 0
    total: int | None = None
    began_ms: int = 0
    ended_ms: int = 0
    paused: bool = False
    owner: str = ""
    until_ms: int = 0
    since_ms: int = 0
    since_rows: int = 0
    fed_ms: int = 0
    error: str = ""

    @property
    def runs(self) -> bool:
        """Whether somebody runs it now."""
        return self.until_ms > self.now_ms


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that a run brings at once.

    Attributes:
        number: which of the run, from 1.
        entries: the operations, laid end to end.
        rows, cost: of them.
        checkpoint, skip, total: what the state says once they are taken.
    """

    number: int
    entries: bytes
    rows: int
    cost: int
    checkpoint: str = ""
    skip: int = 0
    total: int | None = None


class BackfillStore(Protocol):
    """What a store does for back-fills."""

    def backfills(self, *names: str) -> list[BackfillState]:
        """Back-fills as they are; without names all that are known."""

    def take_backfill(
        self,
        name: str,
        watcher: str,
        token: str,
        ms: int,
        owner: str,
        *,
        again: bool = False,
        keep: bool = False,
    ) -> bool:
        """Take the right to run a back-fill, or (``keep``) only lengthen one's own.

        It begins a run if none has begun or (``again``) the one before is complete, and else goes
        on with that. False: another runs it, or there is nothing to run.
        """

    def fill(self, name: str, token: str, ms: int, watcher: str, chunk: Chunk, most: int) -> str:
        """Rows enter the index, and the checkpoint moves behind them.

        ``taken``, also when they were before; else why not: ``lost`` (the right is another's),
        ``held`` (the back-fill is paused), ``draining``, ``paused`` (the batcher is), ``full``.
        """

    def leave_backfill(self, name: str, token: str, *, done: bool = False, error: str = "") -> bool:
        """Give back the right to run, because the run is complete, failed, or goes on later."""

    def hold_backfill(self, name: str, watcher: str, *, hold: bool) -> bool:
        """Pause a back-fill, or let it go on; True when that changed anything."""

    def reset_backfill(self, name: str) -> bool:
        """Forget a back-fill; False while somebody runs it."""
