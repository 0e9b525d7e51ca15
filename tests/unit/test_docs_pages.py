"""The documentation is whole: every page is in the navigation, every option in its table."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import celery_batcher
from celery_batcher import errors
from celery_batcher.config import (
    BACKFILL_OPTIONS,
    BATCHER_OPTIONS,
    SETTINGS,
    WATCHER_OPTIONS,
    Option,
)
from celery_batcher.store import keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def rows(page: str, heading: str | None = None) -> dict[str, list[str]]:
    """The rows of a table, below a heading, by what stands first in them."""
    text = (DOCS / page).read_text()
    if heading is not None:
        text = re.split(r"\n#+ ", text.partition(f" {heading}\n")[2])[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    return {first.strip("`"): others for first, *others in cells}


def test_every_page_is_in_the_navigation_and_every_entry_of_it_a_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\n\n")[0]
    listed = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)

    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert pages == set(listed), "put each page of docs/ into `nav` of mkdocs.yml, once"
    assert len(listed) == len(set(listed))


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / "README.md").read_text())

    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def told(value: object) -> str:
    """A default, as the tables write it."""
    if isinstance(value, tuple):
        return f"({''.join(f'{one.__name__},' for one in value)})"
    return f"{value:_}" if isinstance(value, int | float) and value >= 1000 else repr(value)


@pytest.mark.parametrize(
    ("heading", "options"),
    [
        ("Options of a batcher", BATCHER_OPTIONS),
        ("Options of a watcher", WATCHER_OPTIONS),
        ("Options of a back-fill", BACKFILL_OPTIONS),
    ],
)
def test_every_option_is_documented(heading: str, options: Mapping[str, Option]) -> None:
    found = rows("reference/options.md", heading)

    for name, option in options.items():
        row = f"| `{name}` | `{told(option.default)}` | {option.wants} | what it means |"
        assert name in found, f"docs/reference/options.md, {heading}, lacks: {row}"
        default, wants, means = found[name]
        assert (default, wants) == (f"`{told(option.default)}`", option.wants), row
        assert means
    assert set(found) == set(options)


def test_every_setting_is_documented() -> None:
    found = rows("reference/options.md", "Settings of the app")

    assert {name: cells[0] for name, cells in found.items()} == {
        name: f"`{default!r}`" for name, default in SETTINGS.items()
    }


def is_error(value: Any) -> bool:
    return (
        inspect.isclass(value)
        and issubclass(value, Exception)
        and value.__module__ == errors.__name__
    )


def names_of(bases: Iterable[type]) -> str:
    """What else an error is, as the table writes it."""
    names = [
        one.__name__ if one.__module__ == "builtins" else f"{one.__module__}.{one.__name__}"
        for one in bases
        if one is not Exception and not issubclass(one, errors.BatcherError)
    ]
    return ", ".join(f"`{name}`" for name in names)


def test_every_error_is_documented_with_what_else_it_is() -> None:
    found = rows("reference/errors.md")
    ours = dict(inspect.getmembers(errors, is_error))
    del ours["BatcherError"], ours["Throttled"]  # they have sentences

    for name, error in ours.items():
        row = f"| `{name}` | {names_of(error.__bases__)} | when | what to do |"
        assert name in found, f"docs/reference/errors.md lacks: {row}"
        assert found[name][0] == names_of(error.__bases__), row
    assert set(found) == set(ours)


def test_every_public_class_is_documented() -> None:
    page = (DOCS / "reference/classes.md").read_text()
    named = set(re.findall(r"^::: celery_batcher\.(\w+)$", page, re.MULTILINE))

    raised = {name for name, _ in inspect.getmembers(errors, is_error)}
    assert named - raised == set(celery_batcher.__all__) - raised


def hooks() -> Any:
    """The module that MkDocs calls while it builds."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_keys_has_every_key_of_the_code() -> None:
    text = hooks().on_page_markdown((DOCS / "reference/keys.md").read_text())

    assert hooks().MARK not in text
    for name in keys.OWN:
        assert f"| `B {name}` |" in text
    for name in keys.SHARED:
        assert f"{{resource}}:{name}` |" in text
    kinds = re.findall(r"^\| `.*` \| (\w*) \| .+ \|$", text, re.MULTILINE)
    assert len(kinds) > 40
    assert set(kinds) <= {"hash", "zset", "set", "list", "string", ""}


@pytest.mark.parametrize(
    "loads",
    [
        '<script src="https://unpkg.com/mermaid"></script>',
        '<link rel="stylesheet" href="//fonts.example/css">',
        '<img alt="" src="http://example.org/badge.svg">',
    ],
)
def test_a_page_that_loads_from_another_host_ends_the_build(loads: str) -> None:
    fine = '<a href="https://example.org">there</a><script src="assets/bundle.js"></script>'

    assert hooks().on_post_page(fine) == fine
    with pytest.raises(RuntimeError, match="another host"):
        hooks().on_post_page(fine + loads)
