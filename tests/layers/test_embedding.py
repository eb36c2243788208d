"""Embeddings as layers: against one-hot inputs multiplied with the weight, token by token."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import DirectBases, count_params, output_basis, output_error, take_inventory, weight_of
from rank_search.layers.metric import outer_fits, root
from rank_search.layers.replace import recompose
from rank_search.point import Choice
from rank_search.tasks import input_moments, loss_moments, moments_of_inputs
from rank_search.tasks.occurrences import frequencies

TOKENS, WIDTH, PADDING = 40, 16, 3


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, WIDTH, padding_idx=PADDING)
        self.inner, self.head = nn.Linear(WIDTH, 24), nn.Linear(24, TOKENS)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(self.table(ids).cumsum(1))))  # type: ignore[no-any-return]


def reader() -> Reader:
    torch.manual_seed(0)
    return Reader().eval()


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(8, 6, generator=generator) ** 3 * TOKENS).long() for _ in range(3)]


def cut(model: nn.Module, rank: int, data: list[Tensor] | None = None) -> tuple[nn.Module, rs.OptionTable]:
    table = rs.options(model, data, example=batches()[0][:1])
    return rs.factorize(model, {"table": Choice("svd", {"rank": rank})}, table), table


# ---- what is computed --------------------------------------------------------------------------------------


def test_a_form_gives_the_columns_of_its_weight() -> None:
    made, _ = cut(reader(), 5)
    form = made.get_submodule("table")
    assert isinstance(form, rs.Factorization)
    ids = batches()[0]
    one_hot = nn.functional.one_hot(ids, TOKENS).float()
    torch.testing.assert_close(form(ids), one_hot @ form.dense().T)
    assert torch.linalg.matrix_rank(form.dense()) == 5
    assert form.weight.shape == (TOKENS, WIDTH)  # as the module had it
    torch.testing.assert_close(form.weight[ids], form(ids))


def test_an_id_that_is_no_token_raises_as_before() -> None:
    model = reader()
    made, _ = cut(model, 4)
    for bad in (TOKENS, -1):
        messages = []
        for module in (model.table, made.get_submodule("table")):
            with pytest.raises(IndexError) as raised:
                module(torch.tensor([bad]))
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


def test_a_row_of_zeros_for_padding_stays_zero_in_training() -> None:
    made, _ = cut(reader(), 4, batches())
    form: Any = made.get_submodule("table").train()
    ids = torch.tensor([[PADDING, 5, PADDING, 7]])
    before = form(ids)[0, 1].detach().clone()
    optimizer = torch.optim.AdamW(form.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (form(ids) - 1).square().sum().backward()
        optimizer.step()
    found = form(ids)[0].detach()
    assert not found[0].any()
    assert not found[2].any()
    assert not torch.allclose(found[1], before)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"max_norm": 1.0}, "rescales its rows"),
        ({"scale_grad_by_freq": True}, "gradients are of another kind (scale_grad_by_freq)"),
        ({"sparse": True}, "gradients are of another kind (sparse)"),
    ],
)
def test_what_factors_cannot_do_is_refused(option: dict[str, Any], reason: str) -> None:
    (row,) = take_inventory(nn.Sequential(nn.Embedding(9, 4, **option)), torch.tensor([[1, 2]])).skipped
    assert reason in row.reason


def test_costs_are_a_map_for_each_token_and_two_tables() -> None:
    model = reader()
    made, table = cut(model, 5)
    dense, form = (rs.layers(each, batches()[0][:1])["table"] for each in (model, made))
    assert (dense.params, dense.macs) == (TOKENS * WIDTH, 0)
    assert (form.params, form.macs) == (5 * (TOKENS + WIDTH), 6 * 5 * WIDTH)
    assert form.shape == (WIDTH, TOKENS)
    forms = table.of["table"][1:]  # though they take more multiply-adds than to look a row up
    assert forms
    assert all(option.macs > 0 and option.params < TOKENS * WIDTH for option in forms)
    assert count_params(made) == count_params(model) - TOKENS * WIDTH + 5 * (TOKENS + WIDTH)


# ---- what is seen ------------------------------------------------------------------------------------------


def test_moments_are_how_often_each_token_is_to_be_expected() -> None:
    data = batches()
    model = reader()
    layers = take_inventory(model, data[0][:1]).layers
    counts = Counter(int(each) for batch in data for each in batch.flatten())
    total, once = sum(counts.values()), sum(count == 1 for count in counts.values())
    new = (once + 1) / (total + 1)
    expected = torch.tensor([(1 - new) * counts[token] / total + new / TOKENS for token in range(TOKENS)])
    found = moments_of_inputs(model, layers, data)["table"]
    torch.testing.assert_close(found, expected)
    assert float(found.sum()) == pytest.approx(1)
    task = rs.LanguageModel(model, torch.cat([each.flatten() for each in data]), data[0].flatten(), length=6)
    torch.testing.assert_close(input_moments(task, model, layers, 3)["table"], expected)
    seen = loss_moments(task, model, layers, 3)
    torch.testing.assert_close(seen.inputs["table"], expected)
    assert seen.gradients["table"].shape == (WIDTH, WIDTH)


def test_nothing_seen_is_nothing_known() -> None:
    torch.testing.assert_close(frequencies(torch.zeros(4)), torch.full((4,), 0.25))


def test_a_diagonal_stands_for_its_matrix() -> None:
    generator = torch.Generator().manual_seed(2)
    weight, other = torch.randn(2, 6, 9, generator=generator, dtype=torch.float64)
    short = torch.rand(9, generator=generator)
    whole, inner = torch.diag(short), torch.randn(9, 3, generator=generator)
    assert output_error(weight, other, short) == pytest.approx(output_error(weight, other, whole))
    torch.testing.assert_close(outer_fits(weight, inner, short), outer_fits(weight, inner, whole))
    torch.testing.assert_close(torch.diag(root(short, 0.1)), root(whole, 0.1))
    one, same = output_basis(weight, short), output_basis(weight, whole)
    torch.testing.assert_close(one.values, same.values)
    torch.testing.assert_close(one.left[:, :2] @ one.projected[:2], same.left[:, :2] @ same.projected[:2])
    gradients = torch.cov(torch.randn(6, 20, generator=generator, dtype=torch.float64))
    (a, b) = (DirectBases(weight, each, gradients).weighed for each in (short, whole))
    assert a is not None
    assert b is not None
    assert a.error(weight, other) == pytest.approx(b.error(weight, other))
    assert a.total == pytest.approx(b.total)


@pytest.mark.parametrize("kind", ["vector", "matrix", "nothing seen"])
def test_many_outputs_are_decomposed_by_the_side_of_the_inputs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    weight, inputs = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (50, 30))
    squares = inputs.square().mean(0)
    # the product is symmetric but for rounding, and one way reads a half of it where the other reads it whole
    moment = {"vector": squares, "matrix": torch.cov(inputs.T), "nothing seen": torch.zeros(6)}[kind]
    expected = output_basis(weight, moment)
    monkeypatch.setattr("rank_search.layers.bases.WIDE", 20)
    found = output_basis(weight, moment)
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.left.T @ found.left, torch.eye(6, dtype=torch.float64))
    for rank in (1, 3, 6):
        ours, theirs = (each.left[:, :rank] @ each.projected[:rank] for each in (found, expected))
        torch.testing.assert_close(ours, theirs)


def test_gradients_at_too_many_outputs_are_not_paired(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, data = reader(), batches()
    monkeypatch.setattr("rank_search.tasks.gradients.MOST_OUTPUTS", 30)
    task = rs.LanguageModel(model, torch.cat([each.flatten() for each in data]), data[0].flatten(), length=6)
    found = loss_moments(task, model, take_inventory(model, data[0][:1]).layers, 2)
    assert [*found.inputs] == ["table", "inner", "head"]
    assert [*found.gradients] == ["table", "inner"]
    assert "no usable gradient at the outputs of head" in caplog.text


def test_a_fit_is_the_best_for_the_tokens_as_often_as_they_occur() -> None:
    model, data = reader(), batches()
    made, table = cut(model, 5, data)
    layers = take_inventory(model, data[0][:1]).layers
    often = moments_of_inputs(model, layers, data)["table"].double()
    weight, form = weight_of(model, "table").double(), made.get_submodule("table")
    scaled = weight * often.sqrt()
    tail = torch.linalg.svdvals(scaled)[5:].square().sum()
    assert isinstance(form, rs.Factorization)
    error = float(((weight - form.dense().detach()).square() * often).sum())
    assert error == pytest.approx(float(tail), rel=1e-4)
    counted = table.fits("table", Choice("svd", {"rank": 5}))
    assert counted == pytest.approx(error / float(scaled.square().sum()), rel=1e-3)


# ---- out again ---------------------------------------------------------------------------------------------


def test_it_is_put_together_again() -> None:
    model = reader()
    made, table = cut(model, 6, batches())
    again = recompose(made, model, table.fits.layers)
    assert type(again.get_submodule("table")) is nn.Embedding
    torch.testing.assert_close(again(batches()[1]), made(batches()[1]))


def test_it_is_packed_as_a_parameter_is() -> None:
    made, _ = cut(reader(), 6, batches())
    packed = rs.pack_model(made, batches(), example=batches()[0][:1])
    assert "table" not in [row.name for row in packed.layers]
    assert any(name.startswith("table.") for name in packed.grids)
    with torch.no_grad():
        wanted, found = made(batches()[0]), packed.model(batches()[0])
    assert 0 < float((found - wanted).square().mean()) < 0.1 * float(wanted.square().mean())


def test_a_searched_one_is_exported_and_loaded(tmp_path: Path) -> None:
    ids = torch.cat([each.flatten() for each in batches()])
    task = rs.LanguageModel(reader(), ids, ids, length=6)
    point = {"name": "mine", "layers": {"table": {"factorization": "svd", "rank": 4}}}
    seeds = {"dense": False, "allocations": 0, "points": [point]}
    tables = {
        "study": {"name": "lm", "trials": 2, "store": str(tmp_path / "lm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"], "seeds": seeds},
        "training": {"epochs": 1},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    with rs.Store.open(result.store) as store:
        rows = [row for row in store.trials("lm") if row.point.layers["table"].values == {"rank": 4}]
        rs.export_trial(store, "lm", rows[0].number, tmp_path / "small", task=task)
        rs.pack_trial(store, "lm", rows[0].number, tmp_path / "small.rsz", task=task)
        trained = rs.build_model(store, "lm", rows[0].number, task=task)
    assert type(trained.get_submodule("table")).__name__ == "ChannelSVD"
    ids = batches()[0]
    for place in ("small", "small.rsz"):
        torch.testing.assert_close(rs.load(tmp_path / place)(ids[:1]), trained(ids[:1]))
