"""The group ``celery batcher``: every ``celery`` process imports it, so it imports little."""

from __future__ import annotations

import click
from click_didyoumean import DYMGroup

from ..worker import remote
from .commands import changing, dead, filling, following, looking


@click.group(cls=DYMGroup)
def batcher() -> None:
    """Look at batchers and operate them: everything goes to the store and the broker.

    It works with no worker up. NAME is a batcher of the app that -A names. Exit codes: 0 fine, 1 a
    problem was found or something was not finished, 2 wrong usage or an unknown name, 3 the store
    or the broker is away.
    """


for command in (
    *(looking.list_, looking.status, looking.peek, looking.leases, looking.explain, looking.check),
    *(changing.flush, changing.pause, changing.resume, changing.drain, changing.capacity),
    *(changing.purge, filling.backfill, dead.dead, following.metrics, following.events),
):
    batcher.add_command(command)

remote.register()
