"""What MkDocs does beside rendering: keys from the code, nothing from other hosts."""

from __future__ import annotations

import re
from typing import Any

from celery_batcher.store import keys

MARK = "<!-- table: keys -->"
_FROM_OUTSIDE = re.compile(
    r'<(?:script|img|iframe|link)\b[^>]*\s(?:src|href)="(?:https?:)?//[^"]*"'
)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the table of keys where a page asks for it."""
    return markdown.replace(MARK, table_of_keys()) if MARK in markdown else markdown


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings mark their examples as Sphinx wants it; say it in words."""
    return html.replace("<p>Example::</p>", "<p><strong>Example:</strong></p>")


def on_post_page(output: str, **_: Any) -> str:
    """See that a page loads nothing from another host: whoever reads it is nobody's business.

    Raises:
        RuntimeError: it does; the build ends.
    """
    if found := _FROM_OUTSIDE.search(output):
        raise RuntimeError(f"a page loads something from another host: {found[0]}")
    return output


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
