"""Names that were not found: which known one may have been meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_ALIKE: Final = 0.5


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that says a name was not found: the known one that is most like it, if any is.

    >>> did_you_mean("wrokers", ["epochs", "workers"]), did_you_mean("zzz", ["epochs", "workers"])
    ("; did you mean 'workers'?", '')
    """
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_ALIKE)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The same, with all the known names.

    >>> "There is no sampler 'nsga22'" + nearest("nsga22", ["auto", "nsga2"])
    "There is no sampler 'nsga22'; did you mean 'nsga2'? There are: auto, nsga2."
    """
    names = sorted(known)
    return f"{did_you_mean(name, names) or '.'} There are: {', '.join(names) or 'none'}."
