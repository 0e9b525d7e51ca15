"""What MkDocs does beside rendering: the table of the store's keys comes from the code."""

from __future__ import annotations

import re
from typing import Any

from celery_batcher.store import keys

MARK = "<!-- table: keys -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of keys where a page asks for it."""
    return markdown.replace(MARK, table_of_keys()) if MARK in markdown else markdown


def table_of_keys() -> str:
    """The table in the docstring of `celery_batcher.store.keys`, as Markdown."""
    before, _, body, after = re.split(r"^=[= ]+\n", str(keys.__doc__), flags=re.MULTILINE)
    rule = re.findall(r"^=[= ]+\n", str(keys.__doc__), flags=re.MULTILINE)[0]
    starts = [match.start() for match in re.finditer("=+", rule)]
    rows: list[list[str]] = []
    for line in body.splitlines():
        ends = [*starts[1:], len(line)]
        key, kind, what = (line[at:end].strip() for at, end in zip(starts, ends, strict=True))
        if key:
            rows.append([key, kind, what])
        else:  # what the row above says goes on
            rows[-1][2] += f" {what}"
    lines = [f"| `{key}` | {kind} | {_markdown(what)} |" for key, kind, what in rows]
    intro = _markdown(before.partition("\n\n")[2])
    table = ["| key | type | what it holds, and who writes it |", "|---|---|---|", *lines]
    return "\n".join([intro, "", *table, "", _markdown(after)])


def _markdown(text: str) -> str:
    return text.replace("``", "`")
