"""Schedules of the simulation, a few hundred: `make simulate` runs ten thousand."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

import celery_batcher
from simulation.faults import FAULTS
from simulation.mutants import MUTANTS, apply, hunt
from simulation.mutation import Mutant
from simulation.schedule import Schedule
from simulation.world import Killed


@pytest.fixture(scope="module")
def client(redis_server: object) -> Iterator[Redis]:
    """One client of the session's private server."""
    with Redis.from_url(redis_server.url) as client:  # type: ignore[attr-defined]
        yield client


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_no_schedule_breaks_an_invariant_of_the_memory_store(first: int) -> None:
    for seed in range(first, first + 25):
        Schedule(seed).run()


@pytest.mark.parametrize("first", range(10_000, 10_024, 8))
def test_no_schedule_breaks_an_invariant_of_the_redis_store(first: int, client: Redis) -> None:
    for seed in range(first, first + 8):
        Schedule(seed, client).run()
        assert client.keys(f"sim{seed}:*") == []


def test_schedules_have_faults_of_every_kind() -> None:
    faults: Counter[str] = Counter()
    for seed in range(300, 325):
        faults += Schedule(seed).run().faults

    assert FAULTS.keys() <= faults.keys()


def test_a_seed_gives_the_same_schedule_in_every_process() -> None:
    def replay(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "simulation.run", "--seed", "7"],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[-1]

    assert replay("1") == replay("2") != ""


def test_a_killed_actor_reaches_nothing_any_more() -> None:
    schedule = Schedule(1)
    process = schedule._any_process()
    reached: list[str] = []

    def act() -> None:
        try:
            schedule.world.current.sleep(1_000_000)  # type: ignore[union-attr]
        finally:
            with pytest.raises(Killed):
                schedule.store.want(1)
            reached.append("the end")

    actor = process.spawn("act", act)
    schedule.world.run_until(schedule.world.us)
    process.kill()
    schedule.world.run_until(schedule.world.us)

    assert reached == ["the end"]
    assert not actor.alive
    assert schedule.store.take_turn("t", 1).wanted_ms <= 0


# That it bites: `make mutants` hunts all of them.


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_every_mutant_changes_the_package_as_it_is(mutant: Mutant, tmp_path: Path) -> None:
    source = Path(celery_batcher.__file__).parent / mutant.file
    copy = tmp_path / mutant.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(source.read_text())

    apply(mutant, tmp_path)

    assert copy.read_text() != source.read_text()


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("a message is acknowledged before it is staged", "lost"),
        ("a claimed batch holds nothing", "holds"),
        ("a try is not counted", "one attempt"),
    ],
)
def test_an_engine_that_is_broken_breaks_an_invariant(name: str, broken: str) -> None:
    mutant = next(one for one in MUTANTS if one.name == name)

    assert hunt(mutant, 50).broken.startswith(f"{broken}: ")
