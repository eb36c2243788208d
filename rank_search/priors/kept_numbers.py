"""Numbers that were computed for a weight, kept between runs in the folder of its spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch

from rank_search.priors.tensor_files import TensorFiles

Key = tuple[float, ...]


@final
class KeptNumbers:
    """A number for each tuple of numbers of one length, in memory and, given files, on disk.

    Everything is written at once by `save`; of two processes that save, the later wins, and what the other had found
    is computed again when it is needed.

    Args:
        files: where they are kept; None: nowhere.
        name: of the file; it must say everything that the numbers depend on.
    """

    def __init__(self, files: TensorFiles | None = None, name: str = "") -> None:
        self._files, self._name = files, name
        stored = None if files is None else files.load(name)
        self._numbers: dict[Key, float] = {}
        if stored is not None:
            keys = map(tuple, stored["keys"].tolist())
            self._numbers = dict(zip(keys, stored["numbers"].tolist(), strict=True))
        self._saved = len(self._numbers)

    def get(self, key: Key, compute: Callable[[], float]) -> float:
        """The number of that key; computed if it is not there."""
        if key not in self._numbers:
            self._numbers[key] = compute()
        return self._numbers[key]

    def save(self) -> None:
        """Keep everything for later, if something is new."""
        if self._files is None or len(self._numbers) == self._saved:
            return
        keys = torch.tensor(list(self._numbers), dtype=torch.float64)
        numbers = torch.tensor(list(self._numbers.values()), dtype=torch.float64)
        self._files.save(self._name, {"keys": keys, "numbers": numbers})
        self._saved = len(self._numbers)
