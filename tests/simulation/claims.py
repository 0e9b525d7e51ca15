"""What is claimed, and what becomes of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from builders import read
from celery_batcher import wire
from celery_batcher.store.base import Settlement

from .world import World


@dataclass(slots=True)
class Claimed:
    """A claim that took effect: the operations still in its batch, and whether it has ended."""

    nonce: str
    operations: list[tuple[bytes, int]]
    at: int
    until: int
    commits: int = 0
    ended: bool = False


@dataclass
class Claims:
    """The claims of a batcher, when nothing may start, and what was recorded.

    Args:
        finish: told of each operation that is done.
    """

    world: World
    finish: Callable[[bytes], None]
    happened: Counter[str]
    granted: dict[tuple[str, str], Claimed] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    taken_back: set[str] = field(default_factory=set)
    closed_until: float = 0
    paused_until: float = 0

    def last_of(self, batch: str) -> Claimed:
        """The last claim of a batch."""
        claims = [claim for (id, _), claim in self.granted.items() if id == batch]
        return max(claims, key=lambda claim: claim.at)

    def succeeded(self, batch: str) -> None:
        """A task of this batch returned and says what it did."""
        if batch not in self.settled:
            self.world.fail(f"recorded: the task of {batch} succeeded, its outcomes are nowhere")

    def expired(self, batch: str) -> None:
        """A task was told that its claim had ended."""
        if batch not in self.taken_back:
            self.world.fail(
                f"fence: the task of {batch} was told that its claim ended, and it had not"
            )

    # What takes effect

    def saw_claim(self, args: tuple[Any, ...], answer: Any) -> None:
        id, nonce = args[:2]
        if answer.state != "claimed":
            return
        operations = read_operations(answer.blocks)
        known = self.granted.get((id, nonce))
        if known is None:
            for (other, _), claim in self.granted.items():
                if other == id and not claim.ended:
                    self.world.fail(f"one batch: {id} is claimed twice")
            us, now = self.world.us, self.world.us // 1000
            self.granted[id, nonce] = Claimed(nonce, operations, us, us + args[3] * 1000)
            if now < max(self.closed_until, self.paused_until):
                self.world.fail(f"gate: {id} starts while nothing may")
        elif known.operations != operations:
            self.world.fail(f"repeat: the claim of {id} was answered differently")

    def saw_pause(self, args: tuple[Any, ...], _: Any) -> None:
        now, ms = self.world.us // 1000, args[0]
        until = math.inf if ms == -1 else now + ms
        self.paused_until = max(self.paused_until, until) if ms else 0

    def saw_shut(self, args: tuple[Any, ...], _: Any) -> None:
        self.closed_until = max(self.closed_until, self.world.us // 1000 + args[0])

    def saw_throttle(self, _: tuple[Any, ...], answer: Any) -> None:
        self.closed_until = max(self.closed_until, self.world.us // 1000 + answer)

    def saw_commit(self, args: tuple[Any, ...], answer: Any) -> None:
        id, nonce, number, settlement = args
        claim = self.granted.get((id, nonce))
        if not answer or (claim is not None and number <= claim.commits):
            return
        if self._stands(id, claim):
            claim.commits = number  # type: ignore[union-attr]
            self._decide(claim, settlement)  # type: ignore[arg-type]

    def saw_settle(self, args: tuple[Any, ...], answer: Any) -> None:
        id, nonce, settlement = args
        claim = self.granted.get((id, nonce))
        if not answer or (claim is not None and claim.ended and claim.operations == []):
            return
        if self._stands(id, claim):
            self._decide(claim, settlement)  # type: ignore[arg-type]
            claim.ended = True  # type: ignore[union-attr]
            self.settled.add(id)

    def _stands(self, id: str, claim: Claimed | None) -> bool:
        if claim is None or claim.ended:
            self.world.fail(f"fence: outcomes of {id} were taken of a claim that had ended")
            return False
        return True

    def _decide(self, claim: Claimed, settlement: Settlement) -> None:
        outcomes = settlement.outcomes
        if len(outcomes) == 1:
            outcomes *= len(claim.operations)
        kept = []
        for at, outcome in zip(claim.operations, outcomes, strict=True):
            if outcome == "-":
                kept.append(at)
            elif outcome == "d":
                self.finish(at[0])
        claim.operations = kept

    def saw_expire(self, _: Any, answer: Any) -> None:
        for taken in answer:
            self.taken_back.add(taken.id)
            for claim in self._end_claims(taken.id):
                if claim.until > self.world.us + 1000:
                    self.world.fail(f"deadline: {taken.id} was taken back before it")

    def saw_abandon(self, args: tuple[Any, ...], answer: Any) -> None:
        id, owner = args[:2]
        if answer is None:
            return
        self.taken_back.add(id)
        self.happened["batches of killed processes given back at once"] += 1
        for claim in self._end_claims(id):
            if not claim.nonce.startswith(f"{owner}/"):
                self.world.fail(f"deadline: {id} was taken back from {claim.nonce}, not {owner}")

    def _end_claims(self, id: str) -> list[Claimed]:
        ended = [
            claim for (batch, _), claim in self.granted.items() if batch == id and not claim.ended
        ]
        for claim in ended:
            claim.ended, claim.operations = True, [(b"taken back", 0)]
        return ended


def read_operations(blocks: bytes) -> list[tuple[bytes, int]]:
    """The operations in blocks, and which attempt of each it is."""
    read(blocks)  # checks that the blocks are well-formed
    found: list[tuple[bytes, int]] = []
    at = 0
    while at < len(blocks):
        size = int.from_bytes(blocks[at + 12 : at + 16], "big")
        for data in wire.split_entries(blocks[at + 32 : at + 32 + size]):
            entry, _ = wire.decode_entry(data)
            found.append((entry.payload, entry.attempt))
        at += 32 + size
    return found
