"""Deliberate errors in what is held, charged, leased and shared."""

from __future__ import annotations

from .mutation import Mutant

HOLDS, LEDGER, LEASING = (
    "store/memory_holds.py",
    "store/memory_ledger.py",
    "store/memory_leasing.py",
)
CUTTING, SHARING = "store/memory_cutting.py", "store/memory_sharing.py"

IN_MEMORY = [
    Mutant(
        "a claim looks at the first limit only",
        HOLDS,
        "    return all(limit.state.held + limit.cost_of(costs) <= limit.capacity for limit in limits)\n",
        "    return all(one.state.held + one.cost_of(costs) <= one.capacity for one in limits[:1])\n",
    ),
    Mutant(
        "an unclaimed batch holds its first dimension only",
        HOLDS,
        "    for dimension, cost in enumerate(costs, 1):\n",
        "    for dimension, cost in enumerate(costs[:1], 1):\n",
    ),
    Mutant(
        "a claimed batch is held as unclaimed, too",
        LEDGER,
        "        hold_open(act, batch.costs, -1)\n",
        "",
    ),
    Mutant(
        "a renewed hold keeps only the first limit's row",
        LEDGER,
        "    hold(act, batch, now)\n    return True\n",
        "    hold(act, batch, now[:1])\n    batch.ends += [act.now for _ in now[1:]]\n"
        "    return True\n",
    ),
    Mutant(
        "a renewal outlasts its lease",
        LEDGER,
        "    if not fits_what_started(batch.costs, now):\n        for",
        "    if False:\n        for",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "the ends of long windows are rounded down",
        HOLDS,
        "        return -(-(now + self.hold_ms) // bucket) * bucket\n",
        "        return (now + self.hold_ms) // bucket * bucket\n",
    ),
    Mutant(
        "a lease that ends within a hold still counts",
        HOLDS,
        "if ends >= act.now + hold_ms}",
        "if ends >= act.now}",
    ),
    Mutant(
        "the last partition is worth as much as the others",
        HOLDS,
        " - resource.lacking * (resource.last in usable)\n",
        "\n",
    ),
    Mutant(
        "leases of a limiter whose term is over are taken",
        LEASING,
        "    if resource.term != term:\n        return False\n",
        "",
    ),
    Mutant(
        "two limiters lease at once",
        LEASING,
        "    if resource.limiter in {token, None} or resource.limiter_until <= act.now:\n",
        "    if True:\n",
    ),
    Mutant(
        "the code's figures replace those of the store",
        "store/memory.py",
        "        if not resource.limits:\n",
        "        if True:\n",
    ),
    Mutant(
        "recovery begins before the resource opens",
        HOLDS,
        "    resource.from_ms = opens\n",
        "    resource.from_ms = act.now\n",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "a resource closed for longer recovers meanwhile",
        HOLDS,
        "    else:\n        resource.from_ms = later\n",
        "",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "a new capacity ends a recovery, and needs no ramp",
        HOLDS,
        "        rises = step > 0 and resource.factor is None\n",
        "        rises = False\n",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "a debt is never paid",
        HOLDS,
        "        paid = min(limit.state.debt, free(act, limit))\n",
        "        paid = 0\n",
    ),
    Mutant(
        "a debt that is paid holds nothing",
        HOLDS,
        "            hold_until(limit, limit.end_from(act.now), paid)\n",
        "",
    ),
    Mutant(
        "a debt is paid with what others hold",
        HOLDS,
        "        paid = min(limit.state.debt, free(act, limit))\n",
        "        paid = limit.state.debt\n",
    ),
    Mutant(
        "a charge that is sent again counts twice",
        LEDGER,
        "    if batch.charges >= number:\n",
        "    if batch.charges > number:\n",
        test="contract/test_store_charge.py",
    ),
    Mutant(
        "what costs less frees more than it held",
        LEDGER,
        "            refund = limit.state.refund + let_go_of(limit, ends, free)\n",
        "            refund = limit.state.refund + let_go_of(limit, ends, 2 * free)\n",
    ),
    Mutant(
        "what is charged back frees a hold and stays owed",
        LEDGER,
        "        more.append(max(change, -batch.owed[d]))\n",
        "        more.append(max(change, 0))\n",
    ),
    Mutant(
        "back-fills come before all others",
        CUTTING,
        "for nth, rank in ((0, 1), (1, 2))]\n",
        "for nth, rank in ((1, 2), (0, 1))]\n",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "batchers share whatever their weights",
        SHARING,
        "    own.tag = standing.tag + time / standing.member.weight\n",
        "    own.tag = standing.tag + time\n",
        test="unit/test_sharing.py",
    ),
    Mutant(
        "a floor is not kept",
        SHARING,
        "    rank = 0 if part > 0 and earned >= enough else nth + 1\n",
        "    rank = nth + 1\n",
        test="unit/test_sharing.py",
    ),
    Mutant(
        "nobody leaves anything to those that need it more",
        SHARING,
        "            total = [one + batches * more for one, more in zip(total, costs, strict=True)]\n",
        "            pass\n",
        test="unit/test_sharing.py",
    ),
    Mutant(
        "who was away has saved up a claim",
        SHARING,
        "max(own.tag, resource.times[nth])",
        "own.tag",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "water finds its level whatever the weights",
        "fairness.py",
        "        width = sum(weights[at] for at in rising)\n",
        "        weights = [1] * len(demands)\n        width = sum(weights[at] for at in rising)\n",
        test="unit/test_fairness.py",
    ),
]

IN_LUA = [
    Mutant(
        "a claim looks at the first limit only (Lua)",
        "store/lua/parts/holds.lua",
        "    if held(limit) + (costs[limit.dimension] or 0) > limit.capacity then return false end\n",
        "    if limit.n == 1 and held(limit) + costs[1] > limit.capacity then return false end\n",
    ),
    Mutant(
        "a claim is granted whatever the capacity (Lua)",
        "store/lua/claim.lua",
        "  blocked = guard(longest_hold()) > 0 or not fits_what_started(costs)\n",
        "  blocked = guard(longest_hold()) > 0\n",
    ),
    Mutant(
        "an unclaimed batch holds its first dimension only (Lua)",
        "store/lua/parts/index.lua",
        "    add(RES, nth('open', dimension), sign * cost)\n",
        "    if dimension == 1 then add(RES, 'open', sign * cost) end\n",
    ),
    Mutant(
        "a renewed hold keeps only the first limit's row (Lua)",
        "store/lua/renew.lua",
        "call('HSET', batch_key(ARGV[3]), 'ends'",
        "limits = { limits[1] }\ncall('HSET', batch_key(ARGV[3]), 'ends'",
    ),
    Mutant(
        "a renewal outlasts its lease (Lua)",
        "store/lua/renew.lua",
        "if not fits_what_started(costs) then\n",
        "if false then\n",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "the ends of long windows are rounded down (Lua)",
        "store/lua/parts/holds.lua",
        "  return math.ceil((now + limit.hold) / limit.bucket) * limit.bucket\n",
        "  return math.floor((now + limit.hold) / limit.bucket) * limit.bucket\n",
    ),
    Mutant(
        "a lease that ends within a hold still counts (Lua)",
        "store/lua/parts/limits.lua",
        "call('ZCOUNT', LEASES, now + hold, '+inf')",
        "call('ZCOUNT', LEASES, now, '+inf')",
    ),
    Mutant(
        "leases of a limiter whose term is over are taken (Lua)",
        "store/lua/lease.lua",
        "if num(RES, 'term') ~= tonumber(ARGV[3]) then return 0 end\n",
        "",
    ),
    Mutant(
        "recovery begins before the resource opens (Lua)",
        "store/lua/parts/slowing.lua",
        "  call('HSET', RES, 'from_ms', opens)\n",
        "  call('HSET', RES, 'from_ms', now)\n",
        test="contract/test_store_capacity.py",
    ),
    Mutant(
        "a debt is never paid (Lua)",
        "store/lua/parts/holds.lua",
        "    local paid = math.min(num(RES, nth('debt', n)), free(limit))\n",
        "    local paid = 0\n",
    ),
    Mutant(
        "a charge that is sent again counts twice (Lua)",
        "store/lua/charge.lua",
        "if (tonumber(b[5]) or 0) >= tonumber(ARGV[5]) then return 1 end\n",
        "",
        test="contract/test_store_charge.py",
    ),
    Mutant(
        "what costs less frees more than it held (Lua)",
        "store/lua/charge.lua",
        "let_go_of(limit, ends[n], free)\n",
        "let_go_of(limit, ends[n], 2 * free)\n",
    ),
    Mutant(
        "what is charged back frees a hold and stays owed (Lua)",
        "store/lua/charge.lua",
        "  more[d] = math.max(change, -owed[d])\n",
        "  more[d] = math.max(change, 0)\n",
    ),
]
