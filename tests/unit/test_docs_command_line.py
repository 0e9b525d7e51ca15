"""docs/command-line.md has every command, and every command line in it is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from celery.worker.control import Panel

from celery_batcher.bin.batcher import batcher as group
from celery_batcher.bin.failures import AWAY, PROBLEM, USAGE

MANUAL = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
LINES = [line for line in MANUAL.splitlines() if line.startswith("$ celery -A proj batcher ")]


def leaves(one: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(one, click.Group):
        return [path]
    inner = one.commands.items()
    return [found for name, command in inner for found in leaves(command, (*path, name))]


@pytest.mark.parametrize("path", leaves(group))
def test_every_command_is_in_the_table(path: tuple[str, ...]) -> None:
    first, *rest = path
    words = rf"{first} NAME {rest[0]}" if rest else first

    assert re.search(rf"^\| `{re.escape(words)}\b", MANUAL, re.MULTILINE)


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_one(line: str) -> None:
    args = shlex.split(line.removeprefix("$ celery -A proj batcher "))
    command: click.Command = group
    context = click.Context(group)
    while isinstance(command, click.Group):
        name, command, args = command.resolve_command(context, args)
        context = command.make_context(name, list(args), parent=context)
        args = [*context._protected_args, *context.args]

    assert not args


def test_most_commands_have_an_example() -> None:
    shown = {line.split()[5] for line in LINES}

    assert set(group.commands) - shown <= {"events"}


def test_the_exit_codes_are_told() -> None:
    assert re.findall(r"^\| (\d) \|", MANUAL, re.MULTILINE) == [
        "0",
        *map(str, (PROBLEM, USAGE, AWAY)),
    ]


def test_the_commands_of_remote_control_are_told() -> None:
    told = re.findall(r"celery -A proj (?:inspect|control) (\w+)", MANUAL)

    assert set(told) == {name for name in Panel.meta if name.startswith("batcher")}
