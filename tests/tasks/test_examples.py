"""MACs are those of one example, along the right dimension, and the mean where examples differ in what they run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import Example, counted_on, take_inventory
from rank_search.layers.costs import count_macs
from rank_search.tasks import Supervised
from rank_search.tasks.batch import batch_dimension

STEPS, SEQUENCES, WIDTH = 7, 5, 8


class Recurrent(nn.Module):
    """An LSTM and a linear layer; `turned`: the network itself takes sequences first, and turns them."""

    def __init__(self, turned: bool = False, **options: Any) -> None:
        super().__init__()
        self.turned = turned
        self.lstm, self.out = nn.LSTM(WIDTH, 12, **options), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.turned else x
        found = self.out(self.lstm(x)[0])
        return found.transpose(0, 1) if self.turned else found  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """Attention over embedded tokens."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.embedding(x))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("network", "dimension"),
    [
        (lambda: Recurrent(), 1),
        (lambda: Recurrent(batch_first=True), 0),
        (lambda: Recurrent(turned=True), 0),
        (lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GRU(WIDTH, 3)), 1),
        (lambda: nn.Transformer(WIDTH, 2, 1, 1, 16).encoder, 1),
        (lambda: nn.Linear(WIDTH, 4), 0),
    ],
)
@pytest.mark.parametrize("shape", [(STEPS, SEQUENCES), (STEPS, 1), (1, SEQUENCES), (SEQUENCES, SEQUENCES)])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_the_batch_dimension_follows_modules_that_take_time_first(
    network: Callable[[], nn.Module], dimension: int, shape: tuple[int, int]
) -> None:
    model = network().train()
    assert batch_dimension(model, torch.randn(*shape, WIDTH)) == dimension
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("batch_first", [True, False])
def test_tokens_are_sequences_too(batch_first: bool) -> None:
    assert batch_dimension(Tokens(batch_first), torch.randint(10, (STEPS, SEQUENCES))) == (0 if batch_first else 1)


def test_a_network_that_does_not_run_is_not_judged_here() -> None:
    assert batch_dimension(nn.LSTM(3, 4), torch.randn(STEPS, SEQUENCES, WIDTH)) == 0


def task(network: nn.Module, inputs: Tensor, **options: Any) -> Supervised:
    batches = [(inputs, torch.zeros(inputs.shape[:2], dtype=torch.long))]
    return Supervised(network, batches, batches, batches, **options)


def test_an_example_of_a_network_that_takes_time_first_is_one_sequence(caplog: pytest.LogCaptureFixture) -> None:
    inputs = torch.randn(STEPS, SEQUENCES, WIDTH)
    made = task(Recurrent(), inputs)
    assert torch.equal(made.example(), inputs[:, :1])  # type: ignore[arg-type]
    assert torch.equal(made.example(), inputs[:, :1])  # type: ignore[arg-type]
    assert [len(each) for each in made.examples()] == [STEPS] * 4
    assert [f"one of {SEQUENCES} sequences, all {STEPS} steps" in each.message for each in caplog.records] == [True]
    assert count_macs(made.network, [made.example()]) == STEPS * (4 * 12 * (WIDTH + 12) + 12 * 4)


def test_an_example_that_is_given_is_the_example() -> None:
    given = torch.randn(2, 1, WIDTH)
    made = task(Recurrent(), torch.randn(STEPS, SEQUENCES, WIDTH), one_example=given)
    assert made.example() is given
    assert made.examples() == (given,)


@pytest.mark.parametrize(("there", "taken"), [(1, 1), (3, 2), (9, 8), (100, 8)])
def test_examples_are_so_many_that_means_are_exact(there: int, taken: int) -> None:
    inputs = torch.randn(there, 3, WIDTH)
    examples = task(Recurrent(batch_first=True), inputs).examples()
    assert torch.equal(torch.cat(examples), inputs[:taken])  # type: ignore[arg-type]


# ---- experts ---------------------------------------------------------------------------------------------


class Experts(nn.Module):
    """A router, and experts of different sizes; an example goes to the one that its first number names."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(WIDTH, 16 * (size + 1)) for size in range(3))
        self.back = nn.ModuleList(nn.Linear(16 * (size + 1), 4) for size in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(len(x), 4)
        for number, (expert, back) in enumerate(zip(self.experts, self.back, strict=True)):
            if (chosen := x[:, 0].round() == number).any():
                out[chosen] = back(expert(x[chosen]).relu())
        return out


def routed(*to: int) -> Tensor:
    x = torch.randn(len(to), WIDTH)
    x[:, 0] = torch.tensor(to)
    return x


def of_expert(number: int) -> int:
    return 16 * (number + 1) * (WIDTH + 4)


def split(x: Tensor) -> list[Example]:
    return list(x.split(1))


def test_examples_that_run_alike_are_counted_once() -> None:
    assert len(counted_on(nn.Linear(WIDTH, 4), split(torch.randn(8, WIDTH)))) == 1
    assert len(counted_on(Experts(), split(routed(1, 1, 1, 1)))) == 1
    assert len(counted_on(Experts(), split(routed(1, 1, 2, 1)))) == 4


def test_two_experts_of_one_size_are_told_apart() -> None:
    model = Experts()
    model.experts[1], model.back[1] = nn.Linear(WIDTH, 16), nn.Linear(16, 4)
    assert len(counted_on(model, split(routed(0, 1)))) == 2


def test_each_expert_costs_its_share_of_the_examples() -> None:
    to = (0, 2, 2, 0, 2, 2, 2, 2)
    first, *more = split(routed(*to))
    inventory = take_inventory(Experts(), first, more=more)
    assert set(inventory.layers) == {"experts.0", "experts.2", "back.0", "back.2"}
    assert inventory.dense.macs == sum(map(of_expert, to)) / 8
    assert inventory.rest.macs == 0
    alone = take_inventory(Experts(), first)
    assert alone.dense.macs == of_expert(0)


def compressed(model: nn.Module, inputs: Tensor, folder: Path, **options: Any) -> rs.Compressed:
    batches = [(inputs, torch.zeros(inputs.shape[:1], dtype=torch.long))]
    return rs.compress(
        model.eval(),
        train=batches,
        selection=batches,
        test=batches,
        store=folder / "s.sqlite",
        trials=5,
        training={"epochs": 0},
        **options,
    )


def test_trials_of_experts_record_the_mean_of_what_their_examples_run(tmp_path: Path) -> None:
    to = (0, 1, 1, 2, 2, 2, 2, 1)
    inputs = routed(*to, 0, 0)
    found = compressed(Experts(), inputs, tmp_path)
    assert found.dense["macs"] == sum(map(of_expert, to)) / 8
    smaller = [trial for trial in found.front if trial.measurements["macs"] < found.dense["macs"]]
    assert smaller
    for trial in smaller:
        model = found.model(trial.number)
        assert trial.measurements["macs"] == sum(count_macs(model, [each]) for each in split(inputs[:8])) / 8


def test_compress_says_what_an_example_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = torch.randn(3, 1, WIDTH)
    options: dict[str, Any] = {"loss": lambda outputs, _: outputs.square().mean(), "metric": lambda *_: 0.5}
    with caplog.at_level(logging.WARNING):
        found = compressed(Recurrent(), torch.randn(STEPS, SEQUENCES, WIDTH), tmp_path, example=given, **options)
    assert found.dense["macs"] == 3 * (4 * 12 * (WIDTH + 12) + 12 * 4)
    assert not [record for record in caplog.records if "time first" in record.message]
