"""An entry point of a package that is not installed."""

from __future__ import annotations


class MadeUpEntry:
    """Loads what it is made with, or raises it."""

    value = "somewhere:Something"

    def __init__(self, name: str, found: object) -> None:
        self.name, self.found = name, found

    def load(self) -> object:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found
