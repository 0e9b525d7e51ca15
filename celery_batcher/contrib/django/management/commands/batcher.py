"""``manage.py batcher ...``: what ``celery batcher ...`` does, with the project's Celery app."""

from __future__ import annotations

import sys
from argparse import REMAINDER
from typing import Any

from celery.bin.base import CLIContext
from django.core.management.base import BaseCommand, CommandParser

from .....bin.batcher import batcher
from ...apps import celery_app


class Command(BaseCommand):
    """Looks at batchers and operates them."""

    help = "Look at batchers and operate them: `manage.py batcher -- --help` lists what there is."
    requires_system_checks: list[str] = []  # noqa: RUF012 - so Django has it

    def add_arguments(self, parser: CommandParser) -> None:
        """Leave everything to the group of commands."""
        parser.add_argument("args", nargs=REMAINDER, help="as after `celery batcher`")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command; it ends the process with its exit code unless that is 0."""
        given = list(args[1:] if args[:1] == ("--",) else args) or ["--help"]
        context = CLIContext(
            app=celery_app(), no_color=bool(options["no_color"]), workdir=None, quiet=False
        )
        try:
            batcher.main(given, prog_name="manage.py batcher", obj=context)
        except SystemExit as ended:
            if ended.code:
                sys.exit(ended.code)
