"""The ledger of the store in memory: batches are published, claimed, settled or taken back."""

from __future__ import annotations

from collections.abc import Sequence

from .. import wire
from .base import Claim, Limits, Released, Settlement, TakenBack
from .memory_budget import gate, hold, lapse, longest_hold
from .memory_index import reindex
from .memory_putback import close, give_back
from .memory_state import Act, Batch

TAKEN_BACK = 1000
REPUBLISH_MS, REPUBLISH_MOST_MS = 5_000, 300_000


def published(act: Act, ids: Sequence[str]) -> int:
    state = act.state
    unclaimed = [id for id in ids if id in state.offers]
    for id in unclaimed:
        batch = state.batches[id]
        if not batch.published:
            batch.published, batch.open_since = True, act.now
        state.offers[id] = max(state.offers[id], act.now + REPUBLISH_MS)
    return len(unclaimed)


def offer(act: Act, token: str, most: int) -> list[Released]:
    state, now = act.state, act.now
    if state.turn != token or gate(act):
        return []
    due = sorted((at, id) for id, at in state.offers.items() if at <= now)[:most]
    for _at, id in due:
        batch = state.batches[id]
        batch.offers += 1
        pause = min(REPUBLISH_MS * 2 ** (batch.offers - 1), REPUBLISH_MOST_MS)
        state.offers[id] = now + pause
    return [state.batches[id].describe(now) for _at, id in due]


# What workers do


def claim(act: Act, id: str, nonce: str, limits: Limits, ms: int) -> Claim:
    state, resource = act.state, act.resource
    batch = state.batches.get(id)
    if batch is None:
        return Claim("gone")
    if batch.nonce is not None:
        return _claimed(act, batch) if batch.nonce == nonce else Claim("taken")
    blocked = gate(act) is not None
    if batch.limited and not blocked:
        lapse(act, longest_hold(act, limits))
        if batch.cost > (resource.capacity or 0):
            close(act, batch, Settlement("g"))
            return Claim("recalled")
        blocked = resource.held + batch.cost > (resource.capacity or 0)
    if blocked:
        state.offers[id] = act.now
        return Claim("wait")
    batch.nonce, batch.deadline = nonce, act.now + ms
    if batch.limited:
        resource.open -= batch.cost
        hold(act, batch, limits)
    del state.offers[id]
    watcher = act.watcher(batch.watcher)
    watcher.open -= 1
    watcher.open_cost -= batch.cost
    watcher.claimed += 1
    watcher.probe = False
    reindex(state, batch.watcher)
    return _claimed(act, batch)


def _claimed(act: Act, batch: Batch) -> Claim:
    blocks = b"".join(
        wire.block_of(one.sequence, one.data, one.entry.cost) for one in batch.entries
    )
    return Claim("claimed", blocks, batch.deadline - act.now)


def renew(act: Act, id: str, nonce: str, limits: Limits, renewal: str) -> bool:
    resource = act.resource
    batch = act.state.batches.get(id)
    if batch is None or batch.nonce != nonce:
        return False
    if not batch.limited or batch.renewal == renewal:
        return True
    if batch.ends <= act.now or resource.ends.get(batch.ends, 0) < batch.cost:
        return False
    resource.ends[batch.ends] -= batch.cost
    resource.held -= batch.cost
    hold(act, batch, limits)
    batch.renewal = renewal
    return True


def commit(act: Act, id: str, nonce: str, number: int, settlement: Settlement) -> bool:
    batch = act.state.batches.get(id)
    if batch is None:
        return _refuse(act, id, nonce)
    if batch.nonce is None or batch.nonce != nonce:
        return False
    if batch.commits < number:
        if _misses(batch, settlement):
            return False
        batch.commits = number
        batch.entries = give_back(act, batch, settlement)
        batch.cost = sum(one.entry.cost for one in batch.entries)
        reindex(act.state, batch.watcher)
    return True


def settle(act: Act, id: str, nonce: str, settlement: Settlement) -> bool:
    state = act.state
    batch = state.batches.get(id)
    if batch is None:
        return (id, nonce) in state.settled or _refuse(act, id, nonce)
    if batch.nonce is None or batch.nonce != nonce or _misses(batch, settlement):
        return False
    close(act, batch, settlement)
    _note(state.settled, id, nonce, act.now)
    return True


def _refuse(act: Act, id: str, nonce: str) -> bool:
    state = act.state
    if (id, nonce) not in state.settled:  # else it is a commit from before, sent again
        state.late += _note(state.refused, id, nonce, act.now)
    return False


def _misses(batch: Batch, settlement: Settlement) -> bool:
    """Whether outcomes were meant for the batch before a commit whose answer was lost."""
    return len(settlement.outcomes) > 1 and len(settlement.outcomes) != len(batch.entries)


def _note(claims: dict[tuple[str, str], int], id: str, nonce: str, now: int) -> bool:
    """Note a claim of the last minute; False when it is noted already."""
    for key in [key for key, at in claims.items() if at <= now - 60_000]:
        del claims[key]
    if (id, nonce) in claims:
        return False
    claims[id, nonce] = now
    return True


# What is taken back


def abandon(act: Act, id: str, owner: str, reason: str, *, attempt: bool) -> TakenBack | None:
    batch = act.state.batches.get(id)
    if batch is None or not (batch.nonce or "").startswith(f"{owner}/"):
        return None
    settlement = Settlement(_failed(act, batch), reason) if attempt else Settlement("g")
    return _take_back(act, batch, settlement)


def expire(act: Act, token: str, limits: Limits, reason: str, most: int) -> list[TakenBack]:
    state, now = act.state, act.now
    if state.turn != token:
        return []
    if state.expire_ms and now - state.expire_ms > limits.outage_ms:
        state.spare_until = now + limits.claim_grace_ms
    state.expire_ms = now
    if state.spare_until > now:
        return []
    claimed = [batch for batch in state.batches.values() if batch.nonce is not None]
    late = sorted((one.deadline, one.id) for one in claimed if one.deadline <= now)[:most]
    taken: list[TakenBack] = []
    for _, id in late:
        if sum(one.operations for one in taken) >= TAKEN_BACK:
            break
        batch = state.batches[id]
        taken.append(_take_back(act, batch, Settlement(_failed(act, batch), reason)))
    state.expired += len(taken)
    return taken


def probe(act: Act, token: str, ms: int, most: int) -> list[TakenBack]:
    state = act.state
    if state.turn != token:
        return []
    refusal = gate(act)
    paused = refusal is not None and refusal.reason == "paused"
    unclaimed = [one for one in state.batches.values() if one.nonce is None]
    old = sorted((one.open_since, one.id) for one in unclaimed if one.open_since <= act.now - ms)
    recalled: list[TakenBack] = []
    for _, id in old[:most]:
        if sum(one.operations for one in recalled) >= TAKEN_BACK:
            break
        batch = state.batches[id]
        watcher = act.watcher(batch.watcher)
        if paused or (watcher.claimed == 0 and not batch.probe):
            watcher.probe = watcher.probe or not paused
            recalled.append(_take_back(act, batch, Settlement("g")))
    return recalled


def _failed(act: Act, batch: Batch) -> str:
    """What a batch becomes whose worker was lost: that names no culprit."""
    if not act.watcher(batch.watcher).options.bisect:
        return "r"
    return "h" if len(batch.entries) > 1 else "a"


def _take_back(act: Act, batch: Batch, settlement: Settlement) -> TakenBack:
    close(act, batch, settlement)
    return TakenBack(batch.id, batch.watcher, len(batch.entries))
