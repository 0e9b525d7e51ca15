"""Our templates beside Flower's, and the tab in its navigation bar."""

from __future__ import annotations

import logging
from pathlib import Path

from tornado import template

logger = logging.getLogger("celery_batcher")

_TEMPLATES = Path(__file__).parent / "templates"
_NAVBAR = "navbar.html"
_MARKER = "reverse_url('broker')"
_END = "</li>"
_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'batchers' %} active{% end %}"
            href="{{ reverse_url('batchers') }}"
            {% if active_tab == 'batchers' %}aria-current="page"{% end %}>Batchers</a>
        </li>"""


class PagesLoader(template.Loader):
    """Loads Flower's templates, and ours where they have the name."""

    def _create_template(self, name: str) -> template.Template:
        ours = _TEMPLATES / name
        if ours.is_file():
            return template.Template(ours.read_bytes(), name=name, loader=self)
        if name == _NAVBAR:
            text = with_tab((Path(self.root) / name).read_text(encoding="utf-8"))
            return template.Template(text, name=name, loader=self)
        return super()._create_template(name)


def with_tab(navbar: str) -> str:
    """Flower's navigation bar with our tab after its last one.

    It is as it was when Flower has changed so much that there is no such place.
    """
    at = navbar.find(_MARKER)
    end = navbar.find(_END, at) if at >= 0 else -1
    if end < 0:
        logger.warning("no tab in this version of Flower: the batchers are at /batchers")
        return navbar
    end += len(_END)
    return navbar[:end] + _TAB + navbar[end:]
