"""``status --watch``: the status as it changes, through outages of the store, until Ctrl-C."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from ..errors import StoreUnavailableError
from .printable import printable
from .tables import Look, block, number

if TYPE_CHECKING:
    from ..batcher import Batcher

_WATCHERS = 8
_HISTORY = 40
_STEPS = "▁▂▃▄▅▆▇█"


class Watched:
    """A batcher that is looked at again and again."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher
        self._look: Look | None = None
        self._at = 0.0
        self._away = ""
        self._rates: deque[float] = deque(maxlen=_HISTORY)

    def look(self) -> None:
        """Ask the store; while it is away what it said last is kept."""
        try:
            look = Look.at(self._batcher)
        except StoreUnavailableError as exc:
            self._away = self._away or datetime.now().astimezone().strftime("%H:%M:%S")
            self._error = str(exc)
            return
        now = time.monotonic()
        if self._look is not None and now > self._at and not self._away:
            done = look.status.done - self._look.status.done
            self._rates.append(max(0.0, done / (now - self._at)))
        self._look, self._at, self._away = look, now, ""

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._away:
            line = f"since {self._away}: {printable(self._error)} Trying again."
            parts.append(Text(f"{self._batcher.name}  the store is away {line}", "bold red"))
        if self._look is not None:
            parts.append(block(self._look, more=self._rate(), most=_WATCHERS))
        return Group(*parts)

    def _rate(self) -> Iterable[tuple[str, RenderableType]]:
        if self._rates:
            text = Text(f"{number(round(self._rates[-1]))} operations/s done  ")
            text.append(sparkline(self._rates), "cyan")
            yield "speed", text


def sparkline(values: Iterable[float]) -> str:
    """Numbers as a row of bars, the highest of them full."""
    numbers = list(values)
    most = max(numbers, default=0.0)
    if most <= 0:
        return _STEPS[0] * len(numbers)
    return "".join(_STEPS[round(one / most * (len(_STEPS) - 1))] for one in numbers)


class Screen:
    """All that is watched, below a line with the time."""

    def __init__(self, batchers: Sequence[Batcher], interval: float) -> None:
        self._watched = [Watched(batcher) for batcher in batchers]
        self._interval = interval

    def look(self) -> None:
        """Ask the stores."""
        for one in self._watched:
            one.look()

    def __rich__(self) -> RenderableType:
        now = datetime.now().astimezone().strftime("%H:%M:%S")
        heading = Rule(
            Text(f"celery batcher  {now}  every {self._interval:g} s, Ctrl-C ends", "dim"),
            style="dim",
            align="left",
        )
        return Group(heading, *self._watched)


def watch(console: Console, batchers: Sequence[Batcher], interval: float) -> None:
    """Show the status until Ctrl-C: on a screen of its own, or line by line where there is none."""
    screen = Screen(batchers, interval)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            with Live(screen, console=console, screen=True, auto_refresh=False) as live:
                while True:
                    screen.look()
                    live.refresh()
                    time.sleep(interval)
        while True:
            screen.look()
            console.print(screen)
            time.sleep(interval)
    except KeyboardInterrupt:
        return
