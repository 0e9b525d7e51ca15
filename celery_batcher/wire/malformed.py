"""The error of bytes that are not what they should be."""

from __future__ import annotations

_MAX_TEXT = 400


class MalformedError(ValueError):
    """Bytes that are no entry or no message; the text says what is wrong with them.

    ``id`` is the message's id, if at least that can be read.
    """

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message[:_MAX_TEXT].encode("ascii", "backslashreplace").decode())
        self.id = id
