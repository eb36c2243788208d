"""How whoever runs a trial ends it early."""

from __future__ import annotations

from collections.abc import Callable

Stop = Callable[[], None]
"""Called between batches; raises to end the trial."""


def never() -> None:
    """Do not stop."""
