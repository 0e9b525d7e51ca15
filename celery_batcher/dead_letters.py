"""Dead letters: operations that failed for good, kept to be looked at, redriven or purged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from . import wire
from .store.counts import Dead

if TYPE_CHECKING:
    from .watcher import Watcher

_STEP = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An operation that failed for good.

    Attributes:
        id: the operation's.
        cost, key, priority: as it was enqueued.
        attempts: how often it was tried.
        enqueued_at, died_at: when, in UTC.
        reason: what the handler said, or the traceback of the last error.
        payload: the operation's; None when it cannot be read, which is then the reason.
    """

    id: str
    cost: int
    key: str | None
    priority: str
    attempts: int
    enqueued_at: datetime
    died_at: datetime
    reason: str
    payload: Any


class DeadLetters:
    """The dead letters of one watcher: iterate to read them from the store, the oldest first."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __repr__(self) -> str:
        return f"<DeadLetters of {self._watcher.name}>"

    def __len__(self) -> int:
        rows = self._watcher.batcher.store.counts().watchers
        return sum(row.dead for row in rows if row.name == self._watcher.name)

    def __bool__(self) -> bool:
        return True  # it is the letters' place; whether there are any is asked with len()

    def __iter__(self) -> Iterator[DeadLetter]:
        accept = wire.accepted(self._watcher.batcher.app.conf.accept_content)
        for letter in self._stored():
            yield _read(letter, accept)

    def _stored(self) -> Iterator[Dead]:
        after = 0
        while letters := self._watcher.batcher.store.dead(self._watcher.name, _STEP, after):
            yield from letters
            after = letters[-1].number

    def redrive(self, *ids: str) -> int:
        """Enqueue dead letters again as new operations, in their first attempt.

        One whose own id was enqueued again in the meantime stays where it is.

        Args:
            ids: of operations; all of the watcher's when there are none.

        Returns:
            How many wait now.
        """
        return self._apply(self._watcher.batcher.store.redrive, ids)

    def purge(self, *ids: str) -> int:
        """Remove dead letters for good.

        Args:
            ids: of operations; all of the watcher's when there are none.

        Returns:
            How many there were.
        """
        return self._apply(self._watcher.batcher.store.purge, ids)

    def _apply(self, act: Callable[[str, Sequence[int]], int], ids: Sequence[str]) -> int:
        """Do an act with the letters that are there now, in steps."""
        wanted, changed = set(ids), 0
        numbers = [
            letter.number
            for letter in self._stored()
            if not wanted or wire.decode_entry(letter.entry)[0].id in wanted
        ]
        for at in range(0, len(numbers), _STEP):
            changed += act(self._watcher.name, numbers[at : at + _STEP])
        return changed


def _read(letter: Dead, accept: frozenset[str]) -> DeadLetter:
    entry, _ = wire.decode_entry(letter.entry)
    try:
        payload = wire.decode_payload(entry.serializer, entry.payload, accept)
    except Exception:  # noqa: BLE001 - that is why it is dead: the reason says so
        payload = None
    return DeadLetter(
        id=entry.id,
        cost=entry.cost,
        key=entry.key,
        priority=wire.PRIORITIES[entry.priority],
        attempts=entry.attempt,
        enqueued_at=_time(entry.enqueued_ms),
        died_at=_time(letter.at_ms),
        reason=letter.reason,
        payload=payload,
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, timezone.utc)
