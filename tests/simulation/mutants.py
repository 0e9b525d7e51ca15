"""Break the engine on purpose and see that the simulation notices: `make mutants`.

Each mutation is a patch of one place of the package. It is applied to a copy, which must contain
the old text exactly once: a refactoring that moves it makes this command fail, until the patch
follows.
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

from . import mutations, mutations_of_capacity
from .mutation import Mutant
from .run import connected
from .schedule import BrokenError, Schedule

SCHEDULES = {"memory": 1500, "redis": 400}
"""How many schedules of a store a mutant may survive at most."""


MUTANTS = [
    *mutations.MUTANTS,
    *mutations_of_capacity.IN_MEMORY,
    *mutations_of_capacity.IN_LUA,
]


@dataclass(frozen=True)
class Hunt:
    """How a mutant fared: the seed that caught it, or None; and the invariant or the tests."""

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
        if mutant.test:
            return _tried(mutant, directory)
        most = schedules or SCHEDULES[mutant.store]
        command = ["-m", "simulation.mutants", "--hunt", mutant.store, str(most)]
        found = _run_with(directory, command)
    if found.returncode:
        raise ValueError(f"{mutant.name}: the schedules did not run\n{found.stderr[-2000:]}")
    answer = json.loads(found.stdout)
    if answer["package"] != str(package):
        raise ValueError(f"{answer['package']} was run, and not the mutant")
    return Hunt(mutant, answer["seed"], answer["broken"])


def _tried(mutant: Mutant, directory: str) -> Hunt:
    """Run the tests that are to notice it."""
    command = ["-m", "pytest", "-qx", "-p", "no:cacheprovider", mutant.test]
    found = _run_with(directory, command)
    if found.returncode not in {0, 1}:
        raise ValueError(f"{mutant.name}: the tests did not run\n{found.stdout[-2000:]}")
    return Hunt(mutant, 0 if found.returncode else None, mutant.test)


def _run_with(directory: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run Python where this directory has the package."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": directory, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


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
