"""Looking at what waits: what `Batcher.peek` ends in."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from . import wire
from .config import Option, check_value, count, did_you_mean
from .costs import named
from .errors import NoWatcherError
from .operation import Operation
from .watcher import Watcher

if TYPE_CHECKING:
    from .controls import Controls

MOST = Option(10, count(1, 1000), "1 to 1000 operations")


def names_of(batcher: Controls, watcher: str | Watcher | None) -> list[str]:
    """The name of one watcher, or those of all that the code or the store knows.

    Raises:
        NoWatcherError: the watcher is another batcher's, or unknown.
    """
    if isinstance(watcher, Watcher) and watcher.batcher is not batcher:
        raise NoWatcherError(f"{watcher!r} is not one of batcher {batcher.name}")
    names = {*batcher.watchers, *(row.name for row in batcher.store.counts().watchers)}
    if watcher is None:
        return sorted(names)
    name = watcher.name if isinstance(watcher, Watcher) else watcher
    if name not in names:
        known = did_you_mean(name, names) or f": it has {', '.join(sorted(names)) or 'none'}"
        raise NoWatcherError(f"batcher {batcher.name} has no watcher {name!r}{known}")
    return [name]


def peek(batcher: Controls, watcher: str | Watcher | None, most: int) -> list[Operation]:
    """The operations next in turn; of several watchers one each, in turns."""
    most = check_value(MOST, "most", most, "peek")
    accept = wire.accepted(batcher.app.conf.accept_content)
    columns = [
        [_read(batcher, name, entry, accept) for entry in batcher.store.peek(name, most)]
        for name in names_of(batcher, watcher)
    ]
    turns = chain.from_iterable(zip_longest(*columns))
    return [one for one in turns if one is not None][:most]


def _read(batcher: Controls, watcher: str, data: bytes, accept: frozenset[str]) -> Operation:
    entry, _ = wire.decode_entry(data)
    try:
        payload: Any = wire.decode_payload(entry.serializer, entry.payload, accept)
    except Exception:  # noqa: BLE001 - it dies of that in its turn, with the reason
        payload = None
    return Operation(
        id=entry.id,
        watcher=watcher,
        cost=named(entry.costs, batcher.dimensions),
        payload=payload,
        attempt=entry.attempt,
        batchable=entry.batchable,
        key=entry.key,
        priority=wire.PRIORITIES[entry.priority],
    )
