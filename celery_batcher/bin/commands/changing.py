"""Commands that change something: flush, pause, resume, drain, capacity, purge."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..failures import PROBLEM
from ..site import Site, as_json, leaf, name, watcher, yes

if TYPE_CHECKING:
    from ...batcher import Batcher

_DRAIN_STEP = 0.5


def _resume_line(batcher: Batcher) -> str:
    return f"celery batcher resume {batcher.name}"


@leaf("flush")
@name
@as_json
def flush(site: Site, name: str, as_json: bool) -> None:
    """Flush as soon as possible.

    Wherever the turn is held. It brings no extra capacity.
    """
    batcher = site.batcher(name)
    batcher.flush()
    held = bool(batcher.store.counts().turn_ms)
    if as_json:
        site.json({"batcher": batcher.name, "turn_held": held})
    elif held:
        site.say(f"{batcher.name} flushes now")
    else:
        site.say(f"{batcher.name} flushes as soon as anybody can: is beat up, and a worker?")


@leaf("pause")
@name
@click.argument("seconds", type=float, required=False)
@as_json
def pause(site: Site, name: str, seconds: float | None, as_json: bool) -> None:
    """Pause for SECONDS, or until resumed.

    The whole fleet releases and starts no batches. Of two pauses the later end wins. What runs goes
    on.
    """
    batcher = site.batcher(name)
    batcher.pause(seconds)
    paused_for = batcher.status().paused_for
    if as_json:
        site.json({"batcher": batcher.name, "paused_for": paused_for})
    elif paused_for is None:
        site.say(f"{batcher.name} is paused until resumed: {_resume_line(batcher)}")
    else:
        site.say(f"{batcher.name} is paused for {paused_for:.1f} s")


@leaf("resume")
@name
@as_json
def resume(site: Site, name: str, as_json: bool) -> None:
    """End a pause or a drain, in the whole fleet."""
    batcher = site.batcher(name)
    batcher.resume()
    phase = batcher.status().phase
    if as_json:
        site.json({"batcher": batcher.name, "phase": phase})
    else:
        site.say(f"{batcher.name} goes on ({phase})")


@leaf("drain")
@name
@yes
@as_json
@click.option(
    "--timeout", type=click.FloatRange(0), help="Seconds to wait; by default as long as it takes."
)
def drain(site: Site, name: str, yes: bool, as_json: bool, timeout: float | None) -> None:
    """Take no more operations, and wait for all to end.

    Whoever enqueues is refused, in the whole fleet. The batcher stays drained until it is resumed.
    Exit code 1: the time was over first.
    """
    batcher = site.batcher(name)
    site.confirm(f"Whoever enqueues for {batcher.name} will be refused. Drain it?", yes=yes)
    try:
        done = _drain(site, batcher, timeout, quiet=as_json)
    except KeyboardInterrupt:
        done = False
    left = batcher.store.counts().unfinished
    if as_json:
        site.json({"batcher": batcher.name, "drained": done, "unfinished": left})
    elif done:
        site.say(f"{batcher.name} is drained; it takes operations again after")
        site.say(f"  {_resume_line(batcher)}")
    else:
        site.say(f"{batcher.name} is still draining, {left:,} operations have not ended;")
        site.say(f"  {_resume_line(batcher)}   lets it take operations again")
    if not done:
        sys.exit(PROBLEM)


def _drain(site: Site, batcher: Batcher, timeout: float | None, *, quiet: bool) -> bool:
    """Drain in steps, so that a terminal shows how far it is."""
    now = batcher.clock.monotonic
    until = None if timeout is None else now() + timeout
    status = None
    if site.console.is_terminal and not quiet:
        status = site.console.status("draining")
        status.start()
    try:
        while True:
            left = _DRAIN_STEP if until is None else until - now()
            if batcher.drain(min(_DRAIN_STEP, max(0.0, left))):
                return True
            if left <= 0:
                return False
            if status is not None:
                counts = batcher.store.counts()
                status.update(f"{counts.unfinished:,} operations have not ended")
    finally:
        if status is not None:
            status.stop()


@leaf("capacity")
@name
@click.option(
    "--set", "figures", multiple=True, metavar="N | DIMENSION=N",
    help="The new capacity, for the whole fleet; by dimension where there are several.",
)  # fmt: skip
@click.option(
    "--reserved", type=click.IntRange(0), help="The new reserved part of a shared capacity."
)
@yes
@as_json
def capacity(
    site: Site, name: str, figures: tuple[str, ...], reserved: int | None, yes: bool, as_json: bool
) -> None:
    """Show or change the capacity.

    It is that of the batcher's resource, as the store has it, for the whole fleet. Of several
    windows of one dimension give a figure for each: --set 10,1000
    """
    from .. import figures as capacities
    from .. import tables

    batcher = site.batcher(name)
    if figures or reserved is not None:
        wanted = capacities.read(batcher, figures)
        if capacities.stops(wanted):
            site.confirm(
                f"With a capacity of 0, {batcher.name} releases only what costs 0. Go on?", yes=yes
            )
        capacities.change(batcher, wanted, reserved)
    limits = batcher.status().limits or capacities.limits_in_code(batcher)
    if as_json:
        site.json(limits)
    elif limits:
        site.say(tables.limits(limits))
    else:
        site.say(f"{batcher.name} has no resource: nothing limits it")


@leaf("purge")
@name
@watcher
@yes
@as_json
def purge(site: Site, name: str, watcher: str | None, yes: bool, as_json: bool) -> None:
    """Remove everything in the buffer for good.

    That is what waits, is delayed or in lanes. What is released or runs is not touched. Pause the
    batcher first, if nothing more of it is to run. Dead letters stay: see "dead NAME purge".
    """
    batcher = site.batcher(name)
    what = f"of {watcher}" if watcher else f"of {batcher.operations_in_buffer():,} operations"
    site.confirm(f"Remove the buffer {what} in {batcher.name} for good?", yes=yes)
    removed = batcher.purge(watcher)
    if as_json:
        site.json({"batcher": batcher.name, "removed": removed})
    else:
        site.say(f"{removed:,} operations were removed from {batcher.name}")
