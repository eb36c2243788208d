"""Steps that are found after training: the least loss + price of coded bits among those that were tried."""

from __future__ import annotations

import torch
from torch import nn

import rank_search as rs
from rank_search.coding import encode
from rank_search.quantization import CodingSettings, Quantizer, latents
from rank_search.training.fine_tuning import EntropyPenalty
from rank_search.training.latent_rounding import round_latents
from rank_search.training.step_grid import StepGrid

X = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))


def a_task() -> rs.Supervised:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 2))
    batches = [(X, network(X).detach())]
    return rs.Supervised(network, batches, batches, None, nn.functional.mse_loss, lambda y, t: float((y - t).norm()))


def search(price: float) -> StepGrid:
    task = a_task()
    return StepGrid(task, task.model(), list(task.training()), price)


def size(found: object) -> int:
    return len(encode(dict(found.state), dict(found.grids)))  # type: ignore[attr-defined]


def test_a_dearer_bit_gives_fewer_bytes_and_more_loss() -> None:
    prices = [1e-7, 1e-6, 1e-5]
    found = [search(price).best() for price in prices]
    sizes = [size(each) for each in found]
    losses = [each.objective - 8 * price * own for each, price, own in zip(found, prices, sizes, strict=True)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert losses[0] < losses[1] < losses[2]


def test_the_best_is_no_worse_than_any_neighbour() -> None:
    one = search(1e-6)
    best, felt = one.best().objective, one._felt()
    again = search(1e-6)
    exact = {name: each.detach().clone() for name, each in latents(again.model).items()}
    tried = [again.judged(again._put(exact, felt, (power, power))).objective for power in range(-12, 13, 3)]
    assert best <= min(tried)


def test_a_parameter_that_is_not_trained_has_the_step_it_would_have() -> None:
    frozen, trained = search(1e-6), search(1e-6)
    frozen.model.get_parameter("0.weight").requires_grad_(False)
    assert frozen._felt() == trained._felt()
    assert [name for name, each in frozen.model.named_parameters() if not each.requires_grad] == ["0.weight"]


def test_the_state_is_on_the_grids() -> None:
    found = search(1e-6).best()
    for name, grid in found.grids.items():
        assert torch.equal(grid.values(grid.round(found.state[name]), torch.float32), found.state[name])


def test_the_smallest_of_all_candidates_is_left_in_the_model() -> None:
    task = a_task()
    model = task.model()
    good = {name: each.detach().clone() for name, each in model.state_dict().items()}
    entropy = EntropyPenalty(Quantizer(latents(model), 5.0, CodingSettings()), 1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))  # what a training has spoilt
    grids = round_latents(task, model, entropy, "grid", good)
    loss = float(nn.functional.mse_loss(model(X), task.training_batches[0][1]).detach())  # type: ignore[index]
    assert loss < 1e-2
    assert grids.keys() == latents(model).keys()
