"""What a deliberate error is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A deliberate error: what it does wrong, where, and in which text.

    Attributes:
        test: the tests that notice it, where no invariant of the simulation can.
    """

    name: str
    file: str
    old: str
    new: str
    test: str = ""

    @property
    def store(self) -> str:
        """The store that runs the code."""
        return "redis" if self.file.endswith(".lua") else "memory"
