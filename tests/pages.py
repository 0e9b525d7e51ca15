"""The pages of docs/ as tests use them: blocks of code that are files, and commands."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BROKER = "redis://localhost:6379/0"
"""What every page says; tests put another address in its place."""

_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file that it is (if any), and its text."""

    language: str
    file: str
    text: str


def blocks(page: str) -> list[Block]:
    """The blocks of a page, given from the root of the repository."""
    text = (ROOT / page).read_text()
    return [
        Block(language, "".join(re.findall(r'title="(.+?)"', info)), code)
        for language, info, code in _FENCE.findall(text)
    ]


def write(page: str, directory: Path, broker: str) -> list[str]:
    """Write the files of a page; return their names, in order."""
    found = [block for block in blocks(page) if block.file]
    for block in found:
        path = directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text.replace(BROKER, broker))
    return [block.file for block in found]


@contextmanager
def imported(directory: Path, *names: str) -> Iterator[list[object]]:
    """Modules of a directory, imported in order, and forgotten afterwards."""
    modules = []
    try:
        for name in names:
            spec = importlib.util.spec_from_file_location(name, directory / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            modules.append(sys.modules.setdefault(name, importlib.util.module_from_spec(spec)))
            spec.loader.exec_module(modules[-1])
        yield modules
    finally:
        for name in names:
            sys.modules.pop(name, None)
