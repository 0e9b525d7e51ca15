"""What a test expects of operations and batches, and what it is told when that is not so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import wire
from .errors import BatcherError, NoWatcherError
from .operation import Operation
from .records import Records, Start
from .watcher import Watcher

if TYPE_CHECKING:
    from .batcher import Batcher

ANY: Any = type("Any", (), {"__repr__": lambda self: "ANY"})()
"""Whatever it is."""
_MOST = 10
_WIDEST = 200


def watcher_among(batchers: Sequence[Batcher], watcher: str | Watcher) -> Watcher:
    """The watcher of this name that one of the batchers has.

    Raises:
        NoWatcherError: none has it.
    """
    name = watcher.name if isinstance(watcher, Watcher) else watcher
    for one in batchers:
        if name in one.watchers:
            return one.watchers[name]
    known = ", ".join(sorted(name for one in batchers for name in one.watchers)) or "none"
    raise NoWatcherError(f"no batcher in this test has a watcher {name!r}: they have {known}")


def mismatch(
    records: Records,
    what: str,
    watcher: Watcher,
    wanted: tuple[Any, Any, Any],
    count: int | None,
    state: Callable[[tuple[str, str]], bool] | None,
) -> str:
    """What is wrong about the number of such operations; "" when nothing is.

    Args:
        wanted: payload, key and cost.
        state: whether the operation of a watcher's name and an id is what it should be.
    """
    of_watcher = [one for one in records.operations.values() if one.watcher == watcher.name]
    such = [one for one in of_watcher if _matches(watcher, one, wanted)]
    found = [one for one in such if state is None or state((one.watcher, one.id))]
    if len(found) == count or (count is None and found):
        return ""
    names = ("payload", "key", "cost")
    said = [f"{name} {one!r}" for name, one in zip(names, wanted, strict=True) if one is not ANY]
    number = "at least one operation" if count is None else _number(count)
    lines = [
        f"expected {number} of {watcher.name} {what}{', with ' if said else ''}{', '.join(said)}; "
        f"found {len(found)}"
    ]
    lines += _listed(records, of_watcher)
    others = Counter(one.watcher for one in records.operations.values())
    del others[watcher.name]
    if not of_watcher and others:
        lines.append(f"others: {', '.join(f'{n} of {name}' for name, n in others.items())}")
    return "\n".join(lines)


def _number(count: int) -> str:
    return f"{count} operation{'' if count == 1 else 's'}"


def _matches(watcher: Watcher, operation: Operation, wanted: tuple[Any, Any, Any]) -> bool:
    payload, key, cost = wanted
    if key is not ANY and operation.key != key:
        return False
    if cost is not ANY and operation.cost != cost:
        return False
    if payload is ANY or operation.payload == payload:
        return True
    return bool(operation.payload == _carried(watcher, payload))


def _carried(watcher: Watcher, payload: Any) -> Any:
    """The payload as its handler would get it."""
    batcher = watcher.batcher
    serializer = batcher.serializer()
    try:
        data = wire.encode_payload(payload, serializer)
    except BatcherError:
        return payload  # it cannot be carried, so nothing that was is equal to it
    return wire.decode_payload(serializer, data, wire.accepted(batcher.app.conf.accept_content))


def _listed(records: Records, operations: Sequence[Operation]) -> list[str]:
    """The operations, each with what became of it."""
    if not operations:
        return ["none was enqueued"]
    lines = [f"{_number(len(operations))} enqueued:"]
    lines += [f"  {_short(one)}: {_state(records, one)}" for one in operations[:_MOST]]
    if len(operations) > _MOST:
        lines.append(f"  and {len(operations) - _MOST} more")
    return lines


def _short(operation: Operation) -> str:
    text = repr(operation.payload)
    text = text if len(text) <= _WIDEST else f"{text[:_WIDEST]}..."
    key = "" if operation.key is None else f", key {operation.key!r}"
    return f"{text}, cost {operation.cost!r}{key}"


def _state(records: Records, operation: Operation) -> str:
    name = operation.watcher, operation.id
    if name in records.dead:
        reason = records.dead[name].strip().splitlines()
        return f"dead, {reason[-1] if reason else 'without a reason'}"
    if name in records.done:
        return "done"
    tried = [one for one in records.batches if operation.id in one.outcomes]
    if tried:
        return f"{tried[-1].outcomes[operation.id]} at {tried[-1].started_at:g} s, not done yet"
    return "not handled yet"


def stuck(batchers: Sequence[Batcher], timeout: float) -> str:
    """What operations still wait for."""
    lines = [f"not all operations were done or dead after {timeout:g} s of the test's clock"]
    for batcher in batchers:
        status = batcher.status()
        lines.append(
            f"{batcher.name}: {status.admitted + status.waiting} wait, {status.delayed} are to be "
            f"tried again later, {status.released + status.running} are in batches"
        )
        for row in status.watchers:
            if row.waiting or row.delayed:
                lines.append(str(batcher.explain(row.name)))
    return "\n".join(lines)


def over_capacity(starts: Sequence[Start]) -> str:
    """The first window that took more than its limit; "" when none did."""
    for first, start in enumerate(starts):
        for limit in start.limits:
            spent, most = 0, 0
            for one in starts[first:]:
                if one.at_ms >= start.at_ms + limit.window_ms:
                    break
                if one.resource == start.resource:
                    spent += one.costs[limit.dimension - 1]
                    most = max(most, _capacity(one, limit.dimension, limit.window_ms))
            if spent > most:
                return (
                    f"batches of cost {spent} started within {limit.window_ms / 1000:g} s, and the "
                    f"capacity of resource {start.resource} is {most}"
                )
    return ""


def _capacity(start: Start, dimension: int, window_ms: int) -> int:
    return max(
        one.capacity
        for one in start.limits
        if (one.dimension, one.window_ms) == (dimension, window_ms)
    )
