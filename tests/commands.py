"""Running ``celery batcher ...`` in a test's own process, on the app of the test."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result

from celery_batcher.bin.batcher import batcher as group


def run(app: Celery, *args: str, code: int = 0, answer: str | None = None) -> Result:
    """Run a command; its exit code must be this one, and there is no terminal."""
    context = CLIContext(app=app, no_color=True, workdir=None)
    result = CliRunner(env={"COLUMNS": None}).invoke(group, args, obj=context, input=answer)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def said(app: Celery, *args: str, code: int = 0) -> str:
    """What a command says on standard output, without the spaces of tables."""
    return " ".join(run(app, *args, code=code).stdout.split())


def failed(app: Celery, *args: str, code: int = 2) -> str:
    """The one line that a command fails with."""
    result = run(app, *args, code=code)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


def answered(app: Celery, *args: str, code: int = 0) -> Any:
    """The JSON that a command answers with."""
    return json.loads(run(app, *args, "--json", code=code).stdout)
