"""The training data as one stream of batches that can be left and gone on with elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import final

from torch import Tensor

from rank_search.errors import CheckpointError
from rank_search.tasks import Batch, Task, checked_batches, generators, known_count, set_generators


def count_batches(task: Task) -> int:
    """Batches in an epoch, at least one."""
    batches = task.training()
    return known_count(batches) or sum(1 for _ in checked_batches(batches, "training data"))


@final
class ResumableBatches(Iterator[Batch]):
    """Batch after batch, pass after pass.

    A pass that is shuffled by torch's global generator is gone on with in its middle like this: the generators
    are put where they were when the pass began, so that it is shuffled alike, the batches that were taken are
    taken again and left, and the generators are put where they were when it was left. So the batches that follow
    are the same ones if they depend on the generators and on how many came before, and on nothing else.

    Attributes:
        began: the generators when this pass began.
        taken: batches of it so far.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._batches: Iterator[Batch] = iter(())
        self.began = generators()
        self.taken = 0

    def __next__(self) -> Batch:
        for batch in self._batches:
            self.taken += 1
            return batch
        self.began, self.taken = generators(), 0
        self._batches = checked_batches(self._task.training(), "training data")
        return next(self)

    def skip(self, began: Mapping[str, Tensor], taken: int) -> None:
        """Go to the place after that many batches of the pass that began there.

        Raises:
            CheckpointError: the pass is shorter than that.
        """
        set_generators(began)
        for _ in range(taken):
            next(self)
        if self.taken != taken:
            raise CheckpointError(
                f"A checkpoint resumes with the data it was made with; {taken} batches of a pass were taken, and now "
                "a pass has fewer. Start the trial over."
            )
