"""Break the engine on purpose and see that the simulation notices: `make mutants`.

Each mutation is a patch of one place of the package. It is applied to a copy, which must contain the
old text exactly once: a refactoring that moves it makes this command fail, until the patch follows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import celery_batcher

from .run import connected
from .schedule import BrokenError, Schedule

SCHEDULES = {"memory": 1500, "redis": 400}
"""How many schedules of a store a mutant may survive at most."""


@dataclass(frozen=True)
class Mutant:
    """A deliberate error: what it does wrong, where, and in which text."""

    name: str
    file: str
    old: str
    new: str

    @property
    def store(self) -> str:
        """The store that runs the code."""
        return "redis" if self.file.endswith(".lua") else "memory"


PUTBACK = "store/lua/parts/putback.lua"
MEMORY_INTAKE, MEMORY_LEDGER = "store/memory_intake.py", "store/memory_ledger.py"
MEMORY_PUTBACK, MEMORY_CUTTING = "store/memory_putback.py", "store/memory_cutting.py"
MEMORY_INDEX = "store/memory_index.py"

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
        "    let_key_go(act, batch)\n    reindex(state, batch.watcher)\n",
        "    let_key_go(act, batch)\n",
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
        "a batch is given back that another process has",
        MEMORY_LEDGER,
        """    if batch is None or not (batch.nonce or "").startswith(f"{owner}/"):\n""",
        "    if batch is None or batch.nonce is None:\n",
    ),
    Mutant(
        "nothing is left while operations are delayed",
        "store/base.py",
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
    ),
    Mutant(
        "a watcher whose batch has ended is not put into the ring (Lua)",
        PUTBACK,
        "  call('DEL', batch_key(id), blocks_key(id))\n  reindex(b.watcher)\n",
        "  call('DEL', batch_key(id), blocks_key(id))\n",
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


@dataclass(frozen=True)
class Hunt:
    """How a mutant fared: the seed that caught it and the invariant, or None."""

    mutant: Mutant
    seed: int | None
    broken: str


def hunt(mutant: Mutant, schedules: int | None = None) -> Hunt:
    """Run schedules on a copy of the package that has this error, until one breaks.

    Raises:
        ValueError: the package does not contain the text exactly once.
    """
    with tempfile.TemporaryDirectory(prefix="batcher-mutant-") as directory:
        package = Path(directory) / "celery_batcher"
        source = Path(celery_batcher.__file__).parent
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutant, package)
        most = schedules or SCHEDULES[mutant.store]
        found = subprocess.run(
            [sys.executable, "-m", "simulation.mutants", "--hunt", mutant.store, str(most)],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if found.returncode:
        raise ValueError(f"{mutant.name}: the schedules did not run\n{found.stderr[-2000:]}")
    answer = json.loads(found.stdout)
    if answer["package"] != str(package):
        raise ValueError(f"{answer['package']} was run, and not the mutant")
    return Hunt(mutant, answer["seed"], answer["broken"])


def apply(mutant: Mutant, package: Path) -> None:
    """Change the text of a package.

    Raises:
        ValueError: it does not contain it exactly once.
    """
    path = package / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} contains this {text.count(mutant.old)} times, not once; "
            f"let the mutant follow the code:\n{mutant.old}"
        )
    path.write_text(text.replace(mutant.old, mutant.new))


def _hunted(store: str, schedules: int) -> None:
    """What the process of a mutant does."""
    answer = {"package": str(Path(celery_batcher.__file__).parent), "seed": None, "broken": ""}
    with connected(store) as client:
        for seed in range(schedules):
            try:
                Schedule(seed, client).run()
            except BrokenError as broken:
                answer |= {"seed": seed, "broken": broken.broken}
                break
    print(json.dumps(answer))


def main() -> int:
    """Hunt all mutants; 1 when one survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hunt", nargs=2, metavar=("STORE", "SCHEDULES"), help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="mutants whose names contain this")
    given = parser.parse_args()
    if given.hunt:
        _hunted(given.hunt[0], int(given.hunt[1]))
        return 0
    chosen = [one for one in MUTANTS if given.only in one.name]
    print("| mutant | store | caught at schedule | by |\n|---|---|---:|---|")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hunts = []
        for one in pool.map(hunt, chosen):
            hunts.append(one)
            caught = "**it survived**" if one.seed is None else one.seed + 1
            print(
                f"| {one.mutant.name} | {one.mutant.store} | {caught} | {one.broken} |", flush=True
            )
    survivors = sum(one.seed is None for one in hunts)
    print(f"\n{len(hunts) - survivors} of {len(hunts)} mutants were caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
