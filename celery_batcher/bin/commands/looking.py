"""Commands that only look: list, status, peek, leases, explain, check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..failures import PROBLEM, USAGE, Failure
from ..site import Site, as_json, leaf, name, optional_name, watcher

if TYPE_CHECKING:
    from ...batcher import Batcher


def chosen(site: Site, one: str | None) -> list[Batcher]:
    """The batcher of this name, or all."""
    return site.batchers() if one is None else [site.batcher(one)]


@leaf("list")
@as_json
def list_(site: Site, as_json: bool) -> None:
    """List the batchers in the code.

    No server is asked.
    """
    from .. import tables

    rows = [tables.Listed.of(batcher) for batcher in site.batchers()]
    site.json(rows) if as_json else site.say(tables.listed(rows))


@leaf("status")
@optional_name
@as_json
@click.option("--watch", is_flag=True, help="Show it live, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True,
    help="Seconds between two looks of --watch.",
)  # fmt: skip
def status(site: Site, name: str | None, as_json: bool, watch: bool, interval: float) -> None:
    """Show what waits, runs and is held, now or live."""
    from .. import live, tables

    batchers = chosen(site, name)
    if watch:
        if as_json:
            raise Failure("--watch is for people: leave out --json, or ask again and again", USAGE)
        live.watch(site.console, batchers, interval)
        return
    looks = [tables.Look.at(batcher) for batcher in batchers]
    if not as_json:
        site.say(tables.statuses(looks))
    else:
        plain = [look.plain() for look in looks]
        site.json(plain if name is None else plain[0])


@leaf("peek")
@name
@watcher
@as_json
@click.option(
    "--most", "-n", type=click.IntRange(1, 1000), default=10, show_default=True,
    help="Operations to show.",
)  # fmt: skip
@click.option("--full", is_flag=True, help="Do not cut long payloads.")
def peek(site: Site, name: str, watcher: str | None, as_json: bool, most: int, full: bool) -> None:
    """Show the operations next in turn.

    Their payloads are as the mask shows them. What is in lanes or delayed is not among them.
    """
    from .. import tables

    batcher = site.batcher(name)
    found = batcher.peek(watcher, most=most)
    masked = [one._replace(payload=batcher.shown(one.payload)) for one in found]
    if as_json:
        site.json([one._asdict() for one in masked])
    elif masked:
        site.say(tables.operations(masked, full=full))
    else:
        site.say(f"nothing waits in the index of {batcher.name}")


@leaf("leases")
@name
@as_json
def leases(site: Site, name: str, as_json: bool) -> None:
    """Show what is leased of a shared capacity."""
    from .. import tables

    batcher = site.batcher(name)
    found = batcher.leases()
    if as_json:
        site.json(found)
    elif found:
        site.say(tables.leases(found))
    else:
        site.say(f"{batcher.resource_name}, the resource of {batcher.name}, has nothing leased")


@leaf("explain")
@name
@click.argument("what", metavar="ID")
@as_json
@click.option(
    "--most", type=click.IntRange(1), default=100_000, show_default=True,
    help="Operations to look at before the search ends.",
)  # fmt: skip
def explain(site: Site, name: str, what: str, as_json: bool, most: int) -> None:
    """Say why an operation does not run.

    And when it can at the earliest. ID is an operation's, or the name of a watcher, for its
    operation next in turn. Exit code 1: the operation was not found.
    """
    from ..printable import printable

    found = site.batcher(name).explain(what, most=most)
    site.json(found) if as_json else site.say(printable(found, lines=True))
    if found.state == "unknown":
        sys.exit(PROBLEM)


@leaf("check")
@optional_name
@as_json
@click.option(
    "--timeout", type=click.FloatRange(0, 60), default=1.0, show_default=True,
    help="Seconds in which workers must answer.",
)  # fmt: skip
def check(site: Site, name: str | None, as_json: bool, timeout: float) -> None:
    """Check servers, settings and workers.

    Exit code 1: there are errors or warnings.
    """
    from .. import tables

    found: list[tuple[str, Any]] = [
        (batcher.name, problem)
        for batcher in chosen(site, name)
        for problem in batcher.check(timeout)
    ]
    if as_json:
        site.json([{"batcher": at, **_fields(problem)} for at, problem in found])
    elif found:
        site.say(tables.problems(found))
    else:
        site.say("nothing is wrong")
    if any(problem.level != "info" for _, problem in found):
        sys.exit(PROBLEM)


def _fields(problem: Any) -> dict[str, str]:
    return {"level": problem.level, "code": problem.code, "message": problem.message}
