"""How many examples a task is measured on: what the error bars of its rates come from."""

from __future__ import annotations

from torch import Tensor

from rank_search.tasks.randomness import seeded
from rank_search.tasks.task import Batch, Task, task_errors


def selection_examples(task: Task) -> int | None:
    """The task's own answer, or the examples of its selection batches counted; None where a batch does not show them.

    Raises:
        TaskError: the task raises.
    """
    with seeded(0), task_errors("selection_examples() or selection()"):
        said = task.selection_examples()
        if said is not None:
            return int(said)
        counts = [_examples(batch) for batch in task.selection()]
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _examples(batch: Batch) -> int | None:
    """Those of a pair whose targets have the examples along their first dimension."""
    if isinstance(batch, tuple | list) and len(batch) > 1 and isinstance(batch[-1], Tensor) and batch[-1].dim() > 0:
        return len(batch[-1])
    return None
