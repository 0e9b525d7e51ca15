"""The command that runs back-fills, and shows how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..failures import USAGE, Failure
from ..printable import printable
from ..site import Site, as_json, leaf

if TYPE_CHECKING:
    from ...backfill import Backfill, BackfillProgress


@leaf("backfill")
@click.argument("name", required=False)
@click.option("--again", is_flag=True, help="Begin a new run if the one before is complete.")
@click.option("--status", "act", flag_value="status", help="Only say how far it is.")
@click.option("--pause", "act", flag_value="pause", help="Take no more rows, wherever it runs.")
@click.option("--resume", "act", flag_value="resume", help="End a pause.")
@click.option("--reset", "act", flag_value="reset", help="Forget how far it was.")
@as_json
def backfill(site: Site, name: str | None, again: bool, act: str | None, as_json: bool) -> None:
    """Run a back-fill, from where it was.

    NAME is the back-fill's; BATCHER:NAME where several batchers have it. Without NAME: how far all
    are. It ends when all rows are enqueued; Ctrl-C ends it before, and the next run goes on.
    """
    from ...progress import bar

    if name is None:
        found = [one for batcher in site.batchers() for one in batcher.backfill_progress()]
    else:
        one = _find(site, name)
        if act is not None:
            getattr(one, act)()
        elif as_json:
            one.run(again=again)
        else:
            with bar() as show:
                one.run(show, again=again)
        found = [one.status()]
    if as_json:
        site.json(found if name is None else found[0])
    else:
        site.say("\n".join(map(_line, found)) or "there are no back-fills")


def _line(progress: BackfillProgress) -> str:
    """How far it is, who runs it, and what ended it before."""
    from ...progress import line

    text = printable(line(progress))
    if progress.runner is not None:
        text += f"  run by {printable(progress.runner)}"
    return f"{text}  {printable(progress.error)}".rstrip()


def _find(site: Site, name: str) -> Backfill:
    """The back-fill of this name.

    Raises:
        Failure: there is none, or several batchers have one.
    """
    from ...config import did_you_mean

    batchers = site.batchers()
    known = {f"{b.name}:{one}": found for b in batchers for one, found in b.backfills.items()}
    named = [full for full in known if name in {full, full.partition(":")[2]}]
    if not named:
        near = did_you_mean(name, [full.partition(":")[2] for full in known])
        raise Failure(f"no batcher of the app has a back-fill {name!r}{near}", USAGE)
    if len(named) > 1:
        raise Failure(f"several batchers have it, name one: {', '.join(sorted(named))}", USAGE)
    return known[named[0]]
