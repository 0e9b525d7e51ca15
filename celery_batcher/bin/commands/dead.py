"""``dead NAME ...``: dead letters are listed, shown, redriven and purged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click_didyoumean import DYMGroup

from ..failures import PROBLEM, USAGE, Failure
from ..site import Site, as_json, leaf, name, watcher, yes

if TYPE_CHECKING:
    from ...batcher import Batcher
    from ...dead_letters import DeadLetter
    from ...watcher import Watcher

_NAME = "celery_batcher.name"


@click.group("dead", cls=DYMGroup)
@name
@click.pass_context
def dead(ctx: click.Context, name: str) -> None:
    """List, show, redrive, purge dead letters.

    Payloads are shown as the batcher's mask shows them.
    """
    ctx.meta[_NAME] = name


ids = click.argument("ids", metavar="[ID]...", nargs=-1)
every = click.option("--all", "every", is_flag=True, help="All that there are.")


def _chosen(site: Site, one: str | None) -> tuple[Batcher, list[Watcher]]:
    """The batcher, and its watchers: one, or all that the code has."""
    from ...looking import names_of

    batcher = site.batcher(click.get_current_context().meta[_NAME])
    if one is None:
        return batcher, sorted(batcher.watchers.values(), key=lambda watcher: watcher.name)
    (name,) = names_of(batcher, one)
    if name not in batcher.watchers:
        raise Failure(f"watcher {name} has left letters, and is not in the code any more", USAGE)
    return batcher, [batcher.watchers[name]]


def _letters(batcher: Batcher, watchers: Sequence[Watcher]) -> Iterator[tuple[str, DeadLetter]]:
    for one in watchers:
        yield from ((one.name, letter) for letter in one.dead_letters)


def _described(name: str, letter: DeadLetter, payload: Any) -> dict[str, Any]:
    from ...plain import plain

    return {"watcher": name, **plain(letter), "payload": plain(payload)}


@leaf("list")
@watcher
@as_json
@click.option(
    "--most", "-n", type=click.IntRange(1), default=20, show_default=True, help="Letters to show."
)
def list_(site: Site, watcher: str | None, as_json: bool, most: int) -> None:
    """List dead letters, the oldest of each watcher first."""
    from .. import tables

    batcher, watchers = _chosen(site, watcher)
    found = [
        (name, letter, batcher.shown(letter.payload))
        for name, letter in islice(_letters(batcher, watchers), most)
    ]
    if as_json:
        site.json([_described(*one) for one in found])
        return
    if not found:
        site.say(f"{batcher.name} has no dead letters")
        return
    site.say(tables.letters(found))
    left = sum(len(one.dead_letters) for one in watchers) - len(found)
    if left > 0:
        site.say(f"and {left:,} more: --most shows them")


@leaf("show")
@click.argument("id")
@watcher
@as_json
def show(site: Site, id: str, watcher: str | None, as_json: bool) -> None:
    """Show all of one dead letter."""
    from ..printable import payload_text, printable

    batcher, watchers = _chosen(site, watcher)
    found = next((one for one in _letters(batcher, watchers) if one[1].id == id), None)
    if found is None:
        raise Failure(f"{batcher.name} has no dead letter {id!r}", PROBLEM)
    name, letter = found
    payload = batcher.shown(letter.payload)
    if as_json:
        site.json(_described(name, letter, payload))
        return
    facts = {
        "id": letter.id,
        "watcher": name,
        "cost": f"{letter.cost:,}",
        "key": "-" if letter.key is None else letter.key,
        "priority": letter.priority,
        "attempts": str(letter.attempts),
        "enqueued at": letter.enqueued_at.isoformat(sep=" ", timespec="milliseconds"),
        "died at": letter.died_at.isoformat(sep=" ", timespec="milliseconds"),
        "payload": payload_text(payload),
    }
    for label, value in facts.items():
        site.say(f"{label:12} {printable(value)}")
    site.say("reason")
    site.say("\n".join(f"  {line}" for line in printable(letter.reason, lines=True).splitlines()))


@leaf("redrive")
@ids
@every
@watcher
@as_json
def redrive(
    site: Site, ids: tuple[str, ...], every: bool, watcher: str | None, as_json: bool
) -> None:
    """Enqueue dead letters again, in their first attempt."""
    _check(ids, every)
    batcher, watchers = _chosen(site, watcher)
    changed = sum(one.dead_letters.redrive(*ids) for one in watchers)
    _tell(site, batcher, "redriven", changed, as_json=as_json)


@leaf("purge")
@ids
@every
@watcher
@yes
@as_json
def purge(
    site: Site, ids: tuple[str, ...], every: bool, watcher: str | None, yes: bool, as_json: bool
) -> None:
    """Remove dead letters for good."""
    _check(ids, every)
    batcher, watchers = _chosen(site, watcher)
    n = len(ids) or sum(len(one.dead_letters) for one in watchers)
    site.confirm(f"Remove {n:,} dead letters of {batcher.name} for good?", yes=yes)
    changed = sum(one.dead_letters.purge(*ids) for one in watchers)
    _tell(site, batcher, "removed", changed, as_json=as_json)


def _check(ids: Sequence[str], every: bool) -> None:
    if bool(ids) == every:
        raise Failure("which letters? Give their ids, or --all", USAGE)


def _tell(site: Site, batcher: Batcher, done: str, changed: int, *, as_json: bool) -> None:
    if as_json:
        site.json({"batcher": batcher.name, done: changed})
    else:
        site.say(f"{changed:,} dead letters of {batcher.name} were {done}")


for _command in (list_, show, redrive, purge):
    dead.add_command(_command)
