"""Back-fills of the store on Redis: what their scripts are told, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .. import wire
from .backfills import BackfillState, Chunk


def state(now: int, name: str, flat: Sequence[bytes]) -> BackfillState:
    """A back-fill, of the fields of its hash."""
    texts = [one.decode() for one in flat]
    fields: dict[str, Any] = dict(zip(texts[::2], texts[1::2], strict=True))

    def number(field: str) -> int:
        return int(fields.get(field) or 0)

    return BackfillState(
        name=name,
        now_ms=now,
        watcher=fields.get("watcher", ""),
        run=number("run"),
        done=fields.get("done") == "1",
        chunk=number("chunk"),
        rows=number("rows"),
        checkpoint=fields.get("checkpoint", ""),
        skip=number("skip"),
        total=number("total") if fields.get("total") else None,
        began_ms=number("began_ms"),
        ended_ms=number("ended_ms"),
        paused=fields.get("paused") == "1",
        owner=fields.get("owner", ""),
        until_ms=number("until_ms"),
        since_ms=number("since_ms"),
        since_rows=number("since_rows"),
        fed_ms=number("fed_ms"),
        error=fields.get("error", ""),
    )


class RedisBackfills:
    """What the store on Redis does for back-fills."""

    def _run(self, name: str, *args: Any, keys: Sequence[str] = ()) -> Any:
        raise NotImplementedError

    def backfills(self, *names: str) -> list[BackfillState]:
        now, *rows = self._run("backfills", *names)
        found = [state(int(now), name.decode(), flat) for name, flat in rows]
        return found if names else sorted(found, key=lambda one: one.name)

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
        flags = int(again), int(keep)
        return bool(self._run("take_backfill", name, watcher, token, ms, owner, *flags))

    def fill(self, name: str, token: str, ms: int, watcher: str, chunk: Chunk, most: int) -> str:
        pieces = json.dumps([row_of(piece) for piece in wire.split_pieces(chunk.entries)])
        answer = self._run(
            "fill",
            name,
            token,
            ms,
            watcher,
            chunk.number,
            chunk.rows,
            chunk.cost,
            chunk.checkpoint,
            chunk.skip,
            "" if chunk.total is None else chunk.total,
            most,
            pieces,
            chunk.entries,
            wire.BLOCK_OPERATIONS,
            wire.BLOCK_BYTES,
        )
        return str(answer.decode())

    def leave_backfill(self, name: str, token: str, *, done: bool = False, error: str = "") -> bool:
        return bool(self._run("leave_backfill", name, token, int(done), error))

    def hold_backfill(self, name: str, watcher: str, *, hold: bool) -> bool:
        return bool(self._run("hold_backfill", name, watcher, int(hold)))

    def reset_backfill(self, name: str) -> bool:
        return bool(self._run("reset_backfill", name))


def row_of(piece: wire.Piece) -> tuple[int, ...]:
    """A piece as the scripts are told of it."""
    return (
        piece.priority,
        piece.operations,
        piece.cost,
        piece.weight,
        piece.bytes,
        int(piece.single),
        *piece.key,
        *(piece.id or ()),
        *(() if piece.dedupe_ms is None else (piece.dedupe_ms,)),
    )
