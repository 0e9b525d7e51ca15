"""Deliberate errors in what becomes of operations."""

from __future__ import annotations

from .mutation import Mutant

PUTBACK = "store/lua/parts/putback.lua"
MEMORY_INTAKE, MEMORY_LEDGER = "store/memory_intake.py", "store/memory_ledger.py"
MEMORY_INDEX, MEMORY_PUTBACK, MEMORY_CUTTING = (
    "store/memory_index.py",
    "store/memory_putback.py",
    "store/memory_cutting.py",
)

MUTANTS = [
    Mutant(
        "a message is acknowledged before it is staged",
        "flusher.py",
        "            staged = self._store.stage(self.token, [one.arrival for one in chunk], leases)\n",
        "            self._intake.acknowledge(self.token, chunk)\n"
        "            staged = self._store.stage(self.token, [one.arrival for one in chunk], leases)\n",
    ),
    Mutant(
        "a refused message stays in the books",
        "enqueuing.py",
        "            self._store.withdraw([one.admission.id for one in admitted])\n",
        "",
    ),
    Mutant(
        "a message is published again as another one",
        "enqueuing.py",
        "                    self._publisher.publish([message])\n",
        "                    one = message.admission\n"
        "                    again = type(one)(one.id + 'x', one.watcher, one.operations, one.cost)\n"
        "                    self._publisher.publish([type(message)(again, message.entries)])\n",
    ),
    Mutant(
        "a handler starts however late it is",
        "claim.py",
        "            if passed <= covered:\n",
        "            if True:\n",
    ),
    Mutant(
        "a handler's outcome is sent once, answered or not",
        "claim.py",
        "                    if patience.over():\n                        raise\n                    continue\n",
        "                    return interrupted\n",
    ),
    Mutant(
        "a new turn leaves the leases of older ones where they are",
        "intakes/memory.py",
        "            if holder != token and batcher == self._batcher:\n",
        "            if False:\n",
    ),
    Mutant(
        "staged messages are not noted",
        MEMORY_INTAKE,
        "        state.noted[one.id] = act.now\n",
        "",
    ),
    Mutant(
        "whoever asks may stage, its turn or not",
        MEMORY_INTAKE,
        "    if state.turn != token:\n        return Staged(lost=True)\n",
        "",
    ),
    Mutant(
        "an arrived message stays in the books",
        MEMORY_INTAKE,
        "        discharge(act, one.id)\n        reindex(state, one.watcher)\n",
        "        reindex(state, one.watcher)\n",
    ),
    Mutant(
        "a message published again is not remembered",
        MEMORY_INTAKE,
        "    state.repeated[id] = act.now\n",
        "",
    ),
    Mutant(
        "a hold ends with its batch",
        MEMORY_PUTBACK,
        "    if batch.nonce is not None:\n        watcher.claimed -= 1\n",
        "    if batch.nonce is not None:\n        watcher.claimed -= 1\n"
        "        if batch.limited:\n"
        "            from .memory_holds import let_go, limits_now\n"
        "            let_go(act, batch, limits_now(act))\n",
    ),
    Mutant(
        "a claimed batch holds nothing",
        MEMORY_LEDGER,
        "        hold(act, batch, now)\n    start_key",
        "        batch.ends = [act.now for _ in now]\n    start_key",
    ),
    Mutant(
        "a claim is granted whatever the capacity",
        MEMORY_LEDGER,
        "        blocked = not fits_what_started(batch.costs, now)\n",
        "",
    ),
    Mutant(
        "a claim is granted in a pause and while the resource is closed",
        MEMORY_LEDGER,
        "    blocked = gate(act) is not None\n",
        "    blocked = False\n",
    ),
    Mutant(
        "a batch is given to a second worker",
        MEMORY_LEDGER,
        'return _claimed(act, batch) if batch.nonce == nonce else Claim("taken")\n',
        "return _claimed(act, batch)\n",
    ),
    Mutant(
        "a task said to be published is never published again",
        MEMORY_LEDGER,
        "        state.offers[id] = max(state.offers[id], act.now + REPUBLISH_MS)\n",
        "        state.offers[id] = act.now + 10**12\n",
    ),
    Mutant(
        "a commit that is sent again counts again",
        MEMORY_LEDGER,
        "    if batch.commits < number:\n",
        "    if batch.commits <= number:\n",
    ),
    Mutant(
        "a settlement that is sent again counts again",
        MEMORY_LEDGER,
        "    if batch is None:\n        return (id, nonce) in state.settled or _refuse(act, id, nonce)\n",
        "    if batch is None:\n        state.done += (id, nonce) in state.settled\n"
        "        return (id, nonce) in state.settled or _refuse(act, id, nonce)\n",
    ),
    Mutant(
        "a late worker's outcomes are taken",
        MEMORY_LEDGER,
        "        return (id, nonce) in state.settled or _refuse(act, id, nonce)\n",
        "        return True\n",
    ),
    Mutant(
        "a claim expires at once",
        MEMORY_LEDGER,
        "for one in claimed if one.deadline <= now)[:most]\n",
        "for one in claimed)[:most]\n",
    ),
    Mutant(
        "a watcher whose batch has ended is not put into the ring",
        MEMORY_PUTBACK,
        "    end_batch(act, batch, ended)\n    reindex(state, batch.watcher)\n",
        "    end_batch(act, batch, ended)\n",
    ),
    Mutant(
        "a try is not counted",
        MEMORY_PUTBACK,
        "min(entry.attempt + 1, 65535)",
        "entry.attempt",
    ),
    Mutant(
        "a delayed operation is forgotten when its time has come",
        MEMORY_PUTBACK,
        "        _wait_again(act, delayed.watcher, delayed.ones)\n",
        "        pass\n",
    ),
    Mutant(
        "what comes back waits behind what arrived",
        MEMORY_INDEX,
        "    queue_of(watcher, one.entry).returned[one.sequence] = one\n",
        "    queue_of(watcher, one.entry).arrived.append(one)\n",
    ),
    Mutant(
        "what failed together stays together",
        MEMORY_PUTBACK,
        "    middle = (len(ones) + 1) // 2\n",
        "    middle = len(ones)\n",
    ),
    Mutant(
        "the second half of what failed is forgotten",
        MEMORY_PUTBACK,
        "    for half in (ones[:middle], ones[middle:]):\n",
        "    for half in (ones[:middle],):\n",
    ),
    Mutant(
        "a group that does not fit loses what is left of it",
        MEMORY_CUTTING,
        "    keep_together(act, name, group[len(taken) :])\n",
        "",
    ),
    Mutant(
        "halves wait for what no batch has failed with",
        MEMORY_CUTTING,
        "        return _cut_together(act, caps.name, size, budget)\n",
        "        if not watcher.queues:\n            return _cut_together(act, caps.name, size, budget)\n",
    ),
    Mutant(
        "nobody is told of a batch that was given back",
        MEMORY_LEDGER,
        """    settlement = Settlement(_failed(act, batch), reason) if attempt else Settlement("g")
    return _take_back(act, batch, "abandoned", settlement)
""",
        """    settlement = Settlement(_failed(act, batch), reason) if attempt else Settlement("g")
    _take_back(act, batch, "abandoned", settlement)
    return None
""",
    ),
    Mutant(
        "a batch is given back that another process has",
        MEMORY_LEDGER,
        """    if batch is None or not (batch.nonce or "").startswith(f"{owner}/"):\n""",
        "    if batch is None or batch.nonce is None:\n",
    ),
    Mutant(
        "nothing is left while operations are delayed",
        "store/counts.py",
        "        return self.admitted + self.waiting + self.delayed\n",
        "        return self.admitted + self.waiting\n",
    ),
    Mutant(
        "whoever asks may stage, its turn or not (Lua)",
        "store/lua/stage.lua",
        "if call('HGET', META, 'turn') ~= ARGV[3] then return { -1, 0, 0 } end\n",
        "",
    ),
    Mutant(
        "staged messages are not noted (Lua)",
        "store/lua/stage.lua",
        "  return call('ZADD', NOTED, 'NX', now, id) == 1 and not repeated\n",
        "  return not repeated\n",
    ),
    Mutant(
        "an arrived message stays in the books (Lua)",
        "store/lua/parts/admission.lua",
        "  call('HDEL', ADMITTED, id)\n",
        "",
    ),
    Mutant(
        "a claimed batch holds nothing (Lua)",
        "store/lua/claim.lua",
        "  call('HSET', batch_key(id), 'ends', pack_costs(hold(costs)))\n",
        "",
    ),
    Mutant(
        "a batch is given to a second worker (Lua)",
        "store/lua/claim.lua",
        "  if b.nonce ~= nonce then return { 'taken' } end\n",
        "",
    ),
    Mutant(
        "a claim is granted in a pause and while the resource is closed (Lua)",
        "store/lua/claim.lua",
        "local blocked = gate()\n",
        "local blocked = false\n",
    ),
    Mutant(
        "a settlement that is sent again counts again (Lua)",
        "store/lua/settle.lua",
        "if not b then return",
        "if not b then add(META, 'done', 1) end\nif not b then return",
    ),
    Mutant(
        "a commit that is sent again counts again (Lua)",
        "store/lua/commit.lua",
        "if (tonumber(b.commits) or 0) >= number then return 1 end\n",
        "",
        test="contract/test_store_repeats.py",
    ),
    Mutant(
        "a watcher whose batch has ended is not put into the ring (Lua)",
        PUTBACK,
        "  meters.end_batch(id, b, ended, tally)\n  reindex(b.watcher)\n",
        "  meters.end_batch(id, b, ended, tally)\n",
    ),
    Mutant(
        "a try is not counted (Lua)",
        PUTBACK,
        "bytes = with_attempt(bytes, entry.attempt + 1)",
        "bytes = with_attempt(bytes, entry.attempt)",
    ),
    Mutant(
        "a delayed operation is forgotten when its time has come (Lua)",
        "store/lua/parts/returning.lua",
        "    wait_again(w, data)\n    watchers[w] = true\n",
        "    watchers[w] = true\n",
    ),
    Mutant(
        "the second half of what failed is forgotten (Lua)",
        PUTBACK,
        "  keep_together(w, halves[2], delay)\n",
        "",
    ),
    Mutant(
        "a group that does not fit loses what is left of it (Lua)",
        "store/lua/parts/cutting.lua",
        "  keep_together(w, rest, 0)\n",
        "",
    ),
]
