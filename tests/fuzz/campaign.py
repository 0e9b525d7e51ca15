"""Fuzz lanes and readers at length: 100,000 messages and more, with a summary by verdict.

    python tests/fuzz/campaign.py [--messages 100000] [--seconds 240] [--seed 1]

A round that fails prints the options that play it again alone.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from celery_batcher.embedded import EmbeddedServer
from fuzz.lanes import Lane, MemoryLane, RabbitLane, RedisLane, Tally
from fuzz.mutations import Mutator
from fuzz.readers import read_all
from servers import RabbitServer, rabbitmq_script

ROUND = 2000
PARTS = {"readers": 0.4, "memory": 0.2, "redis": 0.37, "rabbitmq": 0.03}
"""Where messages go, in parts of all."""


@dataclass
class Campaign:
    """A fuzzing run: what is drawn comes from the seed, and ends with the time."""

    seed: int
    until: float
    mark: Path
    first: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)

    def run(self, name: str, messages: int, play: Callable[[Mutator, int], Tally]) -> None:
        """Play rounds until so many messages went through, or the time is over."""
        tally = self.tallies.setdefault(name, Tally())
        number = self.first
        while tally.messages.total() < messages and time.monotonic() < self.until:
            seed = f"{name}:{self.seed}:{number}"
            try:
                tally.add(play(Mutator(Random(seed), self.mark), min(ROUND, messages)))
                assert not self.mark.exists(), "a pickle was loaded"
            except BaseException:
                print(f"again: --only {name} --seed {self.seed} --round {number}")
                raise
            number += 1

    def summary(self, seconds: float) -> str:
        """A row for each way, and the sum."""
        lines = [f"{'':10} {'messages':>9}  verdicts"]
        for name, tally in self.tallies.items():
            verdicts = ", ".join(f"{n:,} {verdict}" for verdict, n in tally.messages.most_common())
            lines.append(f"{name:10} {tally.messages.total():>9,}  {verdicts}")
            became = ", ".join(f"{n:,} {what}" for what, n in tally.operations.most_common())
            lines += [f"{'':21} operations staged and then: {became}"] if became else []
        kinds: Counter[str] = sum((one.kinds for one in self.tallies.values()), Counter())
        lines.append("kinds: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(kinds.items())))
        lines.append(
            f"{kinds.total():,} messages in {seconds:.0f} s: all accounted for, no crash, "
            "no pickle loaded"
        )
        return "\n".join(lines)


def read_round(mutator: Mutator, size: int) -> Tally:
    """Read messages in every way."""
    mutants = mutator.messages(size)
    verdicts = Counter(read_all(mutant.raw) for mutant in mutants)
    named = {
        "readable": "readable",
        "payload": "unreadable payload",
        "entries": "malformed entries",
        "envelope": "malformed envelope",
    }
    return Tally(
        Counter({named[verdict]: n for verdict, n in verdicts.items()}),
        kinds=Counter(mutant.kind for mutant in mutants),
    )


def through(make: Callable[[], Lane]) -> Callable[[Mutator, int], Tally]:
    """Bring messages through a new lane."""

    def play(mutator: Mutator, size: int) -> Tally:
        lane = make()
        try:
            return lane.round(mutator.messages(size))
        finally:
            lane.close()

    return play


@contextmanager
def rabbit() -> Iterator[RabbitServer]:
    """A private RabbitMQ."""
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=110_000, help="how many in all")
    parser.add_argument("--seconds", type=float, default=300.0, help="the longest it may take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, help="only this way")
    parser.add_argument("--round", type=int, default=0, help="the first round")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # each unreadable message is logged
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="batcher-fuzz-"))
    campaign = Campaign(options.seed, began + options.seconds, directory / "mark", options.round)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for name, part in PARTS.items():
            if options.only not in {None, name}:
                continue
            play = _way(name, stack)
            if play is None:
                print(f"{name} is not installed and is left out")
                continue
            campaign.run(name, round(options.messages * part), play)
    print(campaign.summary(time.monotonic() - began))
    if sum(tally.messages.total() for tally in campaign.tallies.values()) < 0.9 * options.messages:
        sys.exit("the time was over before all messages were through")


def _way(name: str, stack: ExitStack) -> Callable[[Mutator, int], Tally] | None:
    if name == "readers":
        return read_round
    if name == "memory":
        return through(MemoryLane)
    if name == "redis":
        server = stack.enter_context(EmbeddedServer())
        return through(lambda: RedisLane(server.url))
    if rabbitmq_script() is None:
        return None
    node = stack.enter_context(rabbit())
    return through(lambda: RabbitLane(node.url))


if __name__ == "__main__":
    main()
