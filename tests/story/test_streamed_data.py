"""Training data of which nobody knows how many batches there are, as a DataLoader over a stream has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import rank_search as rs
from rank_search.point import State
from rank_search.tasks import on_device
from rank_search.training.resumable_batches import count_batches
from tests.story.stripes import batches, stripes, trained


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Examples one after another."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*stripes(80, seed=1), strict=True)


def test_trials_train_on_a_stream(tmp_path: Path) -> None:
    found = rs.compress(
        trained(),
        train=DataLoader(Stream(), batch_size=20),
        selection=DataLoader(Stream(), batch_size=20),
        test=batches(40, seed=3),
        store=str(tmp_path / "stream.sqlite"),
        trials=4,
        training={"epochs": 1.5},
    )
    with rs.Store.open(found.store) as store:
        states = [row.state for row in store.trials(store.study(found.name))]
    assert states == [State.COMPLETE] * 4


def test_the_batches_of_a_stream_are_counted_on_any_device() -> None:
    stream, few = DataLoader(Stream(), batch_size=30), batches(40, seed=2)
    task = rs.Supervised(trained(), stream, few, few)
    assert count_batches(task) == count_batches(on_device(task, torch.device("meta"))) == 3
