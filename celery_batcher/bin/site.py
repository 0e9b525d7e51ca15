"""Where a command runs: the app and its batchers, and the terminal or pipe that it talks to."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand, CeleryOption

from .failures import USAGE, Failure, failure_of

if TYPE_CHECKING:
    from rich.console import Console

    from ..batcher import Batcher

_PIPE_WIDTH = 200


class Site:
    """What commands get as their first argument."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.app: Any = context.app

    def batchers(self) -> list[Batcher]:
        """All batchers of the app, by name.

        Raises:
            Failure: the app's modules cannot be imported, or make no batcher.
        """
        from .. import tasks

        load(self.app)
        found = sorted(tasks.batchers(self.app), key=lambda one: one.name)
        if not found:
            raise Failure(
                "the app has no batchers: name it with -A, and let it import the modules that make "
                "them (imports=, include=, autodiscover_tasks)",
                USAGE,
            )
        return found

    def batcher(self, name: str) -> Batcher:
        """The batcher of this name.

        Raises:
            NoBatcherError: there is none; it says which are near.
        """
        from .. import tasks

        self.batchers()
        return tasks.the_batcher(self.app, name)

    @functools.cached_property
    def console(self) -> Console:
        """Standard output: colours and a width only where they are seen."""
        from rich.console import Console

        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:  # a terminal without Unicode shows escapes, and no traceback
            reconfigure(errors="backslashreplace")
        seen = sys.stdout.isatty() or "COLUMNS" in os.environ
        return Console(
            no_color=self._context.no_color or None,
            width=None if seen else _PIPE_WIDTH,
            highlight=False,
        )

    def say(self, *renderables: Any) -> None:
        """Print for people; texts are shown as they are, without markup."""
        self.console.print(*renderables, markup=False)

    def note(self, text: str) -> None:
        """Say something beside the answer, on standard error."""
        click.echo(text, err=True)

    def json(self, value: Any) -> None:
        """Print for programs."""
        from ..plain import plain

        click.echo(json.dumps(plain(value), indent=2))

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only if the person at the terminal says so, or ``--yes`` did.

        Raises:
            Failure: there is no terminal to ask at.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise Failure("there is no terminal to ask at: say --yes", USAGE)
        click.confirm(question, abort=True, err=True)


def load(app: Any) -> None:
    """Import the modules in which an app's batchers are made.

    Raises:
        Failure: one of them cannot be imported.
    """
    try:
        app.loader.import_default_modules()
    except Exception as exc:
        where = f"{type(exc).__name__}: {exc}"
        raise Failure(f"the modules of the app cannot be imported: {where}", USAGE) from exc


def leaf(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function whose first argument is the `Site`."""

    def register(act: Callable[..., None]) -> click.Command:
        @functools.wraps(act)
        def run(**arguments: Any) -> None:
            site = Site(click.get_current_context().obj)
            try:
                act(site, **arguments)
            except Exception as exc:
                failure = failure_of(exc, site.app)
                if failure is None:
                    raise
                raise failure from exc

        return click.command(name, cls=CeleryCommand)(run)

    return register


def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of batchers that begin like this; none where the app cannot be loaded."""
    from celery import current_app
    from celery.app.utils import find_app

    from .. import tasks

    named = ctx.find_root().params.get("app")
    try:
        app: Any = find_app(named) if isinstance(named, str) else named or current_app
        load(app)
    except Exception:  # noqa: BLE001 - whoever presses Tab wants no traceback
        return []
    return sorted(one.name for one in tasks.batchers(app) if one.name.startswith(incomplete))


# The stubs that celery-types brings are of an older click.
_argument: Callable[..., Callable[[Any], Any]] = click.argument
name = _argument("name", shell_complete=complete)
optional_name = _argument("name", required=False, shell_complete=complete)
as_json = click.option(
    "--json", "as_json", is_flag=True, cls=CeleryOption, help="Print JSON for programs."
)
yes = click.option("--yes", "-y", is_flag=True, cls=CeleryOption, help="Do not ask.")
watcher = click.option("--watcher", "-w", cls=CeleryOption, help="Only this watcher.")
