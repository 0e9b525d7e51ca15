"""The campaign: rounds of faults until the time or the wanted number of kills is reached.

    cd tests && python -m faults --minutes 40 --directory ../.faults

A campaign that was cut short goes on where it was when it is run again with the same directory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from faults.kinds import Where, quiet, storm
from faults.report import Results, as_json, markdown
from faults.rounds import Outcome
from faults.zygote import Zygote
from servers import RabbitServer, rabbitmq_script

_IN_A_ROW = 3
"""Rounds with one broker before it is the other's turn."""


def main() -> int:
    """Run rounds; 1 when one of them, of earlier runs too, was not sound."""
    options = _options()
    directory: Path = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    results = Results(directory)
    with Zygote() as zygote:
        rabbit = _rabbit(options.broker)
        try:
            _campaign(options, directory, results, zygote, rabbit)
        finally:
            if rabbit is not None:
                rabbit.stop()
    outcomes = results.all()
    (directory / "table.md").write_text(markdown(outcomes))
    (directory / "table.json").write_text(json.dumps(as_json(outcomes), indent=1))
    print(markdown(outcomes))
    return 0 if all(one.sound for one in outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="time to spend now")
    parser.add_argument("--kills", type=int, default=0, help="enough, over all runs; 0: no end")
    parser.add_argument("--directory", type=Path, default=Path(".faults"), help="of the results")
    parser.add_argument("--broker", choices=["Redis", "RabbitMQ", "both"], default="both")
    parser.add_argument("--round", type=float, default=35.0, help="seconds of faults in a round")
    parser.add_argument("--gap", type=float, default=0.8, help="seconds between two faults")
    parser.add_argument(
        "--quiet", type=float, default=60.0, help="seconds of a round of single ones"
    )
    parser.add_argument("--keep", action="store_true", help="logs and facts of sound rounds too")
    return parser.parse_args()


def _rabbit(broker: str) -> RabbitServer | None:
    if broker == "Redis":
        return None
    if rabbitmq_script() is None:
        print("rabbitmq-server is not installed: rounds on Redis only")
        return None
    server = RabbitServer()
    server.start()
    return server


def _campaign(
    options: argparse.Namespace,
    directory: Path,
    results: Results,
    zygote: Zygote,
    rabbit: RabbitServer | None,
) -> None:
    began = time.monotonic()
    brokers = [None] if options.broker == "Redis" or rabbit is None else [None, rabbit]
    if options.broker == "RabbitMQ" and rabbit is not None:
        brokers = [rabbit]
    while time.monotonic() - began < options.minutes * 60:
        outcomes = results.all()
        if 0 < options.kills <= sum(one.kills for one in outcomes):
            return
        number = len(outcomes)
        broker = brokers[number // _IN_A_ROW % len(brokers)]
        place = directory / f"round{number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        where = Where(place, zygote, broker, number)
        outcome = _round(where, options, outcomes)
        if outcome.broken and rabbit is not None:
            rabbit.kill()
            rabbit.start()
        results.add(outcome)
        _say(outcome)
        if outcome.sound and not options.keep:
            shutil.rmtree(place)


def _round(where: Where, options: argparse.Namespace, outcomes: list[Outcome]) -> Outcome:
    """The next round; one that breaks off is an outcome too, and no end of the campaign."""
    kind = "quiet" if options.quiet and where.number % 3 == 2 else "storm"
    counts = _counts(outcomes, where.broker, kind)
    try:
        if kind == "quiet":
            return quiet(where, counts, seconds=options.quiet)
        return storm(where, counts, seconds=options.round, gap=options.gap)
    except Exception:  # noqa: BLE001 - it is kept with the outcome, which is not sound
        return Outcome(where.broker, kind, where.number, broken=traceback.format_exc())


def _counts(outcomes: list[Outcome], broker: str, kind: str) -> Counter[tuple[str, str]]:
    """How often each row has come up."""
    return Counter(
        (strike["component"], strike["fault"])
        for outcome in outcomes
        if (outcome.broker, outcome.kind) == (broker, kind)
        for strike in outcome.strikes
    )


def _say(outcome: Outcome) -> None:
    verdict = "sound" if outcome.sound else f"NOT SOUND, see round{outcome.number}"
    print(
        f"round {outcome.number}, {outcome.kind} on {outcome.broker}: {outcome.seconds:.0f} s, "
        f"{outcome.kills} kills, {len(outcome.strikes)} faults, {outcome.operations} operations, "
        f"{len(outcome.lost)} lost, {len(outcome.twice)} twice, {outcome.dead} dead; {verdict}"
        f"{outcome.broken and chr(10)}{outcome.broken}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
