"""What goes wrong, in one line and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from .printable import printable

PROBLEM, USAGE, AWAY = 1, 2, 3
"""Exit codes: a problem was found; wrong usage or an unknown name; store or broker away."""


class Failure(click.ClickException):
    """Ends a command with a line on standard error."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code  # click declares it as one of the class

    def show(self, file: IO[Any] | None = None) -> None:
        """Say it; nothing of it reaches the terminal as a command."""
        click.echo(f"{click.style('Error:', fg='red')} {printable(self.message)}", err=True)


def failure_of(exc: Exception, app: Any) -> Failure | None:
    """The failure that an error amounts to; None for one that is a bug."""
    from kombu.exceptions import OperationalError

    from ..errors import (
        BackfillRunningError,
        BatcherError,
        BrokerUnavailableError,
        LeaseStoreUnavailableError,
        StoreUnavailableError,
    )

    away = (StoreUnavailableError, BrokerUnavailableError, LeaseStoreUnavailableError)
    if isinstance(exc, away):
        return Failure(_one_line(exc), AWAY)
    if isinstance(exc, OperationalError):
        return Failure(broker_away(app, exc), AWAY)
    if isinstance(exc, BackfillRunningError):
        return Failure(_one_line(exc), PROBLEM)
    if isinstance(exc, BatcherError):
        return Failure(_one_line(exc), USAGE)
    return None


def broker_away(app: Any, exc: BaseException) -> str:
    """That the broker does not answer, and which it is."""
    from kombu.utils.url import maybe_sanitize_url

    from ..connections import broker_url

    url = maybe_sanitize_url(broker_url(app))
    return f"the broker at {url} does not answer ({_one_line(exc)}): is the server up?"


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
