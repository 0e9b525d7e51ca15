"""The ledger of the store in memory: batches are published, claimed, settled or taken back."""

from __future__ import annotations

from collections.abc import Sequence

from .. import wire
from .base import Charge, Claim, Released, Settlement, TakenBack
from .memory_budget import gate
from .memory_holds import (
    LimitNow,
    exceeds_capacity,
    fits_what_started,
    hold,
    hold_open,
    hold_until,
    lapse,
    let_go,
    let_go_of,
    limits_now,
)
from .memory_index import reindex
from .memory_keys import key_refuses, key_stands, start_key
from .memory_putback import close, give_back
from .memory_state import Act, Batch
from .options import Limits

TAKEN_BACK = 1000
SAMPLES, MOST_KEYS = 20, 10_000
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
    state = act.state
    batch = state.batches.get(id)
    if batch is None:
        return Claim("gone")
    if batch.nonce is not None:
        return _claimed(act, batch) if batch.nonce == nonce else Claim("taken")
    blocked = gate(act) is not None
    now = limits_now(act, limits.grace_ms)
    if batch.limited and not blocked:
        lapse(act, now)
        if exceeds_capacity(batch.costs, now):
            close(act, batch, "recalled", Settlement("g"))
            return Claim("recalled")
        blocked = not fits_what_started(batch.costs, now)
    if not blocked:
        blocked, too_dear = key_refuses(act, batch, limits.grace_ms)
        if too_dear:
            close(act, batch, "recalled", Settlement("g"))
            return Claim("recalled")
    if blocked:
        state.offers[id] = act.now
        return Claim("wait")
    batch.nonce, batch.started, batch.deadline = nonce, act.now, act.now + ms
    if batch.limited:
        hold_open(act, batch.costs, -1)
        hold(act, batch, now)
    start_key(act, batch, limits.grace_ms)
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
    batch = act.state.batches.get(id)
    if batch is None or batch.nonce != nonce:
        return False
    if batch.renewal == renewal:
        return True
    if (batch.limited or batch.holds_key) and gate(act):
        return False
    if not key_stands(act, batch, limits.grace_ms):
        return False
    if batch.limited and not _renew_holds(act, batch, limits_now(act, limits.grace_ms)):
        return False
    start_key(act, batch, limits.grace_ms)
    batch.renewal = renewal
    return True


def _renew_holds(act: Act, batch: Batch, now: list[LimitNow]) -> bool:
    """Start what a batch holds of the resource anew; False: it had ended, or does not fit."""
    if not let_go(act, batch, now):
        return False
    if not fits_what_started(batch.costs, now):
        for limit, ends in zip(now, batch.ends, strict=True):
            hold_until(limit, ends, limit.cost_of(batch.costs))
        return False
    hold(act, batch, now)
    return True


def charge(act: Act, id: str, nonce: str, number: int, charge: Charge) -> bool:
    batch = act.state.batches.get(id)
    if batch is None or batch.nonce is None or batch.nonce != nonce:
        return False
    if batch.charges >= number:
        return True
    batch.charges = number
    learn(act, batch.watcher, charge.learned)
    if batch.limited:
        _settle_costs(act, batch, charge.differences)
    return True


def _settle_costs(act: Act, batch: Batch, differences: Sequence[int]) -> None:
    """What is more is owed. What is less was owed before, or is free at once."""
    lacking = [0] * (len(differences) - len(batch.owed))
    batch.owed += lacking
    batch.freed += lacking
    more, less = [], []
    for d, total in enumerate(differences):
        change = total - (batch.owed[d] - batch.freed[d])
        more.append(max(change, -batch.owed[d]))
        less.append(more[d] - change)
        batch.owed[d] += more[d]
        batch.freed[d] += less[d]
    for limit, ends in zip(limits_now(act), batch.ends, strict=True):
        limit.state.debt = max(0, limit.state.debt + limit.cost_of(more))
        free = limit.cost_of(less)
        if free > 0 and ends > act.now:
            refund = limit.state.refund + let_go_of(limit, ends, free)
            limit.state.refund = min(refund, limit.capacity)
            act.resource.freed_ms = act.now


def learn(act: Act, watcher: str, samples: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Means that forget: the newest sample counts at least one part in 20."""
    estimates = act.state.estimates.setdefault(watcher, {})
    for key, costs in samples:
        known = estimates.get(key)
        if known is None and len(estimates) >= MOST_KEYS:
            continue
        if known is None or len(known) != len(costs) + 1:
            known = (0.0,) * (len(costs) + 1)
        count = min(known[0] + 1, SAMPLES)
        moved = (mean + (cost - mean) / count for mean, cost in zip(known[1:], costs, strict=True))
        estimates[key] = (count, *moved)


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
        batch.entries, _ = give_back(act, batch, settlement)
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
    close(act, batch, "settled", settlement)
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
    return _take_back(act, batch, "abandoned", settlement)


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
        settlement = Settlement(_failed(act, batch), reason)
        taken.append(_take_back(act, batch, "expired", settlement))
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
            recalled.append(_take_back(act, batch, "recalled", Settlement("g")))
    return recalled


def _failed(act: Act, batch: Batch) -> str:
    """What a batch becomes whose worker was lost: that names no culprit."""
    if not act.watcher(batch.watcher).options.bisect:
        return "r"
    return "h" if len(batch.entries) > 1 else "a"


def _take_back(act: Act, batch: Batch, ended: str, settlement: Settlement) -> TakenBack:
    died = close(act, batch, ended, settlement)
    return TakenBack(batch.id, batch.watcher, len(batch.entries), tuple(died))
