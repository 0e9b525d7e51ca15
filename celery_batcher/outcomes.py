"""What a handler decides about the operations of its batch, and what follows from an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval

from .config import milliseconds
from .errors import OutcomeError
from .operation import Operation


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of an operation: ``kind`` is a character of `store.base.Settlement`."""

    kind: str
    reason: str = ""
    delay_ms: int = 0
    result: Any = None


DONE, BACK = Outcome("d"), Outcome("g")
_MAX_REASON = 8000
_WORDS = {"d": "done", "r": "to be tried again", "x": "dead"}


def reason_of(text: object) -> str:
    """A reason as it is kept: text that every store can keep, its beginning and its end."""
    clean = str(text).encode(errors="backslashreplace").decode()
    if len(clean) <= _MAX_REASON:
        return clean
    half = _MAX_REASON // 2
    return f"{clean[:half]}\n[{len(clean) - 2 * half} characters left out]\n{clean[-half:]}"


def is_final(operation: Operation, outcome: Outcome, max_attempts: int) -> bool:
    """Whether the operation is dead now. After so many attempts it is; 0: there is no limit."""
    used_up = outcome.kind in "ra" and 0 < max_attempts <= operation.attempt
    return outcome.kind == "x" or used_up


class Decisions:
    """What a handler has decided so far, by the position of the operation in its batch."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations  # keeps them, so that no other object has their identity
        self._by_identity = {id(operation): at for at, operation in enumerate(operations)}
        self._by_id = {operation.id: at for at, operation in enumerate(operations)}
        self._committed: dict[int, Outcome] = {}
        self.pending: dict[int, Outcome] = {}

    def position_of(self, operation: Operation) -> int:
        """Where an operation is in the batch.

        Raises:
            OutcomeError: it is not of this batch.
        """
        position = self._by_identity.get(id(operation), self._by_id.get(operation.id))
        if position is None:
            raise OutcomeError(f"operation {operation.id} is not of this batch")
        return position

    def decide(self, operation: Operation, outcome: Outcome) -> None:
        """Note an outcome; until it is committed the last one counts.

        Raises:
            OutcomeError: the operation is not of this batch, or its outcome is committed.
        """
        position = self.position_of(operation)
        if position in self._committed:
            word = _WORDS[self._committed[position].kind]
            raise OutcomeError(f"operation {operation.id} was committed as {word}")
        self.pending[position] = outcome

    def committed(self, outcomes: Mapping[int, Outcome]) -> None:
        """These are recorded."""
        self._committed |= outcomes
        for position in outcomes:
            self.pending.pop(position, None)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When the operations of a handler that raised are tried again: Celery's options of tasks.

    Attributes:
        retry_backoff: 0: at once; else seconds before the second try, doubled for each further.
        retry_backoff_max: the longest delay, in seconds.
        retry_jitter: whether the delay is drawn at random between 0 and that.
        autoretry_for: errors after which they are tried again.
        dont_autoretry_for: errors after which they are not: they are dead at once.
        bisect: whether more than one of them are tried again in halves first, whatever the error:
            it names no culprit before an operation is alone.
    """

    retry_backoff: int = 0
    retry_backoff_max: int = 600
    retry_jitter: bool = True
    autoretry_for: tuple[type[BaseException], ...] = (Exception,)
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    bisect: bool = True

    def retry(self, operation: Operation, reason: str, after: float | None = None) -> Outcome:
        """Another try, after so many seconds or by the backoff."""
        delay_ms = self._delay_ms(operation) if after is None else milliseconds(after)
        return Outcome("r", reason, delay_ms)

    def after_error(
        self, error: BaseException, undecided: Sequence[Operation], reason: str
    ) -> Callable[[Operation], Outcome]:
        """What becomes of each operation that a handler which raised had not decided about."""
        if self.bisect and len(undecided) > 1:
            halved = Outcome("h", reason, self._delay_ms(undecided[0]))
            return lambda _: halved
        if self._is_final(error):
            return lambda _: Outcome("x", reason)
        kind = "a" if self.bisect else "r"
        return lambda one: Outcome(kind, reason, self._delay_ms(one))

    def _delay_ms(self, operation: Operation) -> int:
        return milliseconds(self._backoff(operation.attempt))

    def _is_final(self, error: BaseException) -> bool:
        if isinstance(error, SoftTimeLimitExceeded) or not isinstance(error, Exception):
            return False  # not the handler's own
        if isinstance(error, self.dont_autoretry_for):
            return True
        return not isinstance(error, self.autoretry_for)

    def _backoff(self, attempt: int) -> float:
        if not self.retry_backoff:
            return 0.0
        interval: Any = get_exponential_backoff_interval(
            factor=self.retry_backoff,
            retries=min(attempt - 1, 32),
            maximum=self.retry_backoff_max,
            full_jitter=self.retry_jitter,
        )
        return float(interval)
