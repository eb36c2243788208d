"""Tied weights: one layer, whose form serves every module that had the weight; against the dense weight in all."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.coding import decode, encode, from_safetensors, to_safetensors
from rank_search.layers import (
    DirectBases,
    Factorization,
    Inventory,
    count_params,
    factorize,
    load_plugin,
    mean_macs,
    recompose,
    skeleton,
    take_inventory,
    weight_of,
)
from rank_search.point import Choice, Point
from rank_search.run.preparation import layer_bases, prepare
from rank_search.tasks import loss_moments, of_uses
from rank_search.tasks.occurrences import frequencies

TOKENS, WIDTH, PADDING = 40, 12, 3
SVD = {"svd": load_plugin("svd")}


class Speaker(nn.Module):
    """An embedding and a head of one weight."""

    def __init__(self, padding: int | None = PADDING, bias: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(TOKENS, WIDTH, padding_idx=padding)
        self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, TOKENS, bias=bias)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.table(ids).cumsum(1))))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """Two linear layers of one weight, with a bias each or none, and two tables of another."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(TOKENS, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=bias)
        self.two.weight, self.b.weight = self.one.weight, self.a.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(self.one(ids)))) + self.two(ids.flip(1))  # type: ignore[no-any-return]


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def batches(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(TOKENS, (4, 6), generator=generator) for _ in range(count)]


def listed(model: nn.Module, **rules: Any) -> Inventory:
    return take_inventory(model, batches()[0][:1], **rules)


def cut(model: nn.Module, ranks: dict[str, int]) -> nn.Module:
    point = Point({name: Choice("svd", {"rank": rank}) for name, rank in ranks.items()})
    return factorize(model, point, listed(model).layers, SVD, lambda name: DirectBases(weight_of(model, name)))


def with_dense_weights(model: nn.Module, cut: nn.Module) -> nn.Module:
    """The model itself, each of its weights what the forms in the other one stand for."""
    found = copy.deepcopy(model)
    for name, form in cut.named_modules():
        if isinstance(form, Factorization):
            found.get_submodule(name).weight.data.copy_(form.weight)  # type: ignore[operator,union-attr]
    return found


CASES = [(Speaker, {"head": 4}), (lambda: Speaker(None, bias=False), {"head": 4, "inner": 3})]
CASES += [(Twice, {"a": 3, "one": 5}), (lambda: Twice(bias=False), {"a": 3})]


def test_the_layer_and_its_ties() -> None:
    layers = listed(made(Speaker)).layers
    assert list(layers) == ["inner", "head"]
    assert [(tie.name, tie.kind, tie.inputs) for tie in layers["head"].ties] == [("table", "embedding", ((1, 6),))]
    layers = listed(made(Twice)).layers
    assert {name: [tie.name for tie in layer.ties] for name, layer in layers.items()} == {"one": ["two"], "a": ["b"]}
    assert "ties" not in str(layers["one"])


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_every_use_is_of_the_one_form(kind: Callable[[], nn.Module], ranks: dict[str, int]) -> None:
    model = made(kind)
    forms = cut(model, ranks)
    dense = with_dense_weights(model, forms)
    for ids in batches():
        torch.testing.assert_close(forms(ids), dense(ids), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(forms(ids), model(ids), atol=1e-2)


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_it_is_kept_and_counted_once(kind: Callable[[], nn.Module], ranks: dict[str, int]) -> None:
    model, example = made(kind), batches()[0][:1]
    inventory, forms = listed(model), cut(model, ranks)
    table = rs.options(model, example=example)
    state = forms.state_dict()
    factors = {name for name in state if name.endswith(("left", "right"))}
    assert factors == {f"{name}.{side}" for name in ranks for side in ("left", "right")}
    assert {*from_safetensors(to_safetensors(state))} == {*state}
    assert {*decode(encode(state))} == {*state}
    for rows, module in ((rs.layers(model, example), model), (rs.layers(forms, example), forms)):
        params, macs = sum(row.params for row in rows), sum(row.macs for row in rows)
        assert (params, macs) == (count_params(module), mean_macs(module, [example]))
        assert (rows.total.params, rows.total.macs) == (params, macs)
    assert inventory.dense == rs.layers(model, example).total
    point = Point({name: Choice("svd", {"rank": rank}) for name, rank in ranks.items()})
    costs = table.total(table.describe(point))
    assert costs == {"params": count_params(forms), "macs": mean_macs(forms, [example])}


def test_gradients_are_those_of_one_product_in_both_places() -> None:
    forms = cut(made(Speaker), {"head": 4})
    ids = torch.cat([batches()[0], torch.full((4, 1), PADDING)], 1)
    weights = torch.randn(4, 7, TOKENS)
    (forms(ids) * weights).sum().backward()
    form: Any = forms.get_submodule("head")
    left, right = (each.detach().clone().requires_grad_() for each in (form.left, form.right))
    weight, inner, bias = left @ right, forms.get_submodule("inner"), form.bias.detach()
    rows = F.embedding(ids, weight, padding_idx=None)
    rows = torch.where((ids == PADDING)[..., None], rows.detach(), rows)  # as nn.Embedding has it
    (F.linear(torch.tanh(inner(rows.cumsum(1))), weight, bias) * weights).sum().backward()
    torch.testing.assert_close(form.left.grad, left.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(form.right.grad, right.grad, rtol=1e-4, atol=1e-5)


def test_padding_has_the_gradient_that_it_has_in_the_dense_model() -> None:
    model = made(Speaker)
    forms = cut(model, {"head": WIDTH})
    ids = torch.full((1, 2), PADDING)
    model(ids).sum().backward()
    forms(ids).sum().backward()
    dense: Any = model.get_submodule("head").weight
    form: Any = forms.get_submodule("head")
    torch.testing.assert_close(form.left.grad, dense.grad @ form.right.detach().T, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_copies_and_skeletons_stay_tied(kind: Callable[[], nn.Module], ranks: dict[str, int]) -> None:
    model, ids = made(kind), batches()[0]
    forms = cut(model, ranks)
    point = Point({name: Choice("svd", {"rank": rank}) for name, rank in ranks.items()})
    bare = skeleton(model, point, listed(model).layers, SVD)
    bare.load_state_dict(forms.state_dict())
    for other in (bare, copy.deepcopy(forms), pickle.loads(pickle.dumps(forms))):
        torch.testing.assert_close(other(ids), forms(ids), rtol=0, atol=0)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.5)
        torch.testing.assert_close(other(ids), with_dense_weights(model_like(model, other), other)(ids))


def model_like(model: nn.Module, forms: nn.Module) -> nn.Module:
    """The dense model with the factorized one's other parameters."""
    found, own = copy.deepcopy(model), dict(forms.named_parameters(remove_duplicate=False))
    for name, parameter in found.named_parameters(remove_duplicate=False):
        if name in own:
            parameter.data.copy_(own[name])
    return found


@pytest.mark.parametrize(("kind", "ranks"), CASES)
def test_it_is_put_together_again_as_one_parameter(kind: Callable[[], nn.Module], ranks: dict[str, int]) -> None:
    model, ids = made(kind), batches()[0]
    forms = cut(model, ranks)
    again = recompose(forms, model, listed(model).layers)
    assert {*again.state_dict()} == {*model.state_dict()}
    assert count_params(again) == count_params(model)
    torch.testing.assert_close(again(ids), forms(ids), rtol=1e-4, atol=1e-5)


def test_a_tie_reads_as_the_module_did() -> None:
    forms = cut(made(Speaker), {"head": 4})
    table, head = (forms.get_submodule(name) for name in ("table", "head"))
    assert table.weight.shape == (TOKENS, WIDTH)
    torch.testing.assert_close(table.weight[2], head.weight[2])  # type: ignore[index]
    assert (table.num_embeddings, table.embedding_dim, table.padding_idx) == (TOKENS, WIDTH, PADDING)
    torch.testing.assert_close(table(input=torch.tensor([2])), table(torch.tensor([2])))
    with pytest.raises(IndexError):
        table(torch.tensor([TOKENS]))


def test_hooks_of_the_layer_are_not_those_of_its_tie() -> None:
    forms = cut(made(Twice), {"a": 3})
    calls: list[Tensor] = []
    handle = forms.get_submodule("a").register_forward_hook(lambda *given: calls.append(given[2]))
    forms(batches()[0])
    handle.remove()
    assert len(calls) == 1


# ---- what is seen ------------------------------------------------------------------------------------------


def seen_by_loops(model: Any, data: list[Tensor]) -> tuple[Tensor, Tensor]:
    """E[h·hᵀ] of the head's inputs, and how often each token is looked up."""
    inputs: list[Tensor] = []
    handle = model.head.register_forward_pre_hook(lambda module, given: inputs.extend(given[0].flatten(0, 1)))
    with torch.no_grad():
        for ids in data:
            model(ids)
    handle.remove()
    moment = sum(torch.outer(row, row) for row in inputs) / len(inputs)
    return moment.double(), frequencies(torch.bincount(torch.cat(data).flatten(), minlength=TOKENS).double())


def test_both_uses_decide_and_each_token_counts_as_often_as_it_occurs() -> None:
    model, data = made(Speaker), batches()
    table = rs.options(model, data, example=data[0][:1])
    choice = Choice("svd", {"rank": 5})
    form: Any = rs.factorize(model, {"head": choice}, table).get_submodule("head")
    moment, often = seen_by_loops(model, data)
    W, made_of = weight_of(model, "head").double(), form.dense().detach().double()

    def losses(matrix: Tensor) -> Tensor:
        head = sum(often[token] * (matrix[token] @ moment @ matrix[token]) for token in range(TOKENS))
        return torch.stack([head, sum(often[token] * matrix[token].square().sum() for token in range(TOKENS))])

    error = float((losses(W - made_of) / losses(W)).sum())
    assert table.fits("head", choice) == pytest.approx(error, rel=5e-3)  # rare tokens count a thousandth more
    metric = moment / losses(W)[0] + torch.eye(WIDTH) / losses(W)[1]
    values = torch.linalg.svdvals(often.sqrt()[:, None] * W @ torch.linalg.cholesky(metric))
    assert error == pytest.approx(float(values[5:].square().sum()), rel=5e-3)  # the least of its rank


def test_known_gradients_are_those_of_the_layer() -> None:
    model, data = made(Speaker), batches()
    task = rs.LanguageModel(model, torch.cat([each.flatten() for each in data]), data[0].flatten(), length=6)
    layers = listed(model).layers
    seen = loss_moments(task, model, layers, 2)
    assert {*seen.gradients} == {"inner", "head"}
    found = of_uses(seen, model, layers)
    assert {*found.inputs} == {"inner", "head"}
    assert all(torch.equal(found.inputs[name], seen.inputs[name]) for name in found.inputs)
    assert {name: each.shape for name, each in found.gradients.items()} == {
        "inner": (WIDTH, WIDTH),
        "head": (TOKENS, TOKENS),
    }


def test_the_priors_settings_reach_the_trials_of_several_workers(tmp_path: Path) -> None:
    ids = torch.cat([each.flatten() for each in batches()])
    task = rs.LanguageModel(made(Speaker), ids, ids, length=6)
    study = {
        "study": {"name": "lm", "trials": 1, "store": str(tmp_path / "lm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"]},
        "folder": tmp_path,
    }
    prepared = prepare(rs.Study.model_validate(study), task)
    assert prepared.moments.gradients["head"].shape == (TOKENS,)
    again = layer_bases(prepared.problem, prepared.moments)["head"]
    assert again.key == prepared.bases["head"].key


# ---- what is left alone ------------------------------------------------------------------------------------


class Reads(Speaker):
    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + self.table.weight.mean()


class Borrows(Speaker):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("again", self.table.weight.data, persistent=False)


class Transposed(Speaker):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(TOKENS, WIDTH)
        self.inner.weight = nn.Parameter(self.table.weight.data.T)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.inner(F.one_hot(ids, TOKENS).float()) + self.table(ids))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "rules", "reasons"),
    [
        (Speaker, {"exclude": ["head"]}, {"table": "its weight is tied to head.weight", "head": "an exclude rule"}),
        (Speaker, {"exclude": ["table"]}, {"table": "an exclude rule", "head": "its weight is tied to table.weight"}),
        (Speaker, {"include": ["inner"]}, {"table": "no include rule", "head": "no include rule"}),
        (Reads, {}, {"table": "its weight is tied to head.weight", "head": "its weight is read elsewhere"}),
        (Borrows, {}, {"table": "its weight is tied to again, head.weight", "head": "tied to again, table.weight"}),
        (Transposed, {}, {"table": "tied to inner.weight, head.weight", "inner": "tied to table.weight, head.weight"}),
    ],
)
def test_what_cannot_be_one_layer_has_its_reason(
    kind: Callable[[], nn.Module], rules: dict[str, Any], reasons: dict[str, str]
) -> None:
    model = made(kind)
    inventory = listed(model, **rules)
    found = {row.name: row.reason for row in inventory.skipped}
    assert not {*reasons} & {*inventory.layers}
    for name, reason in reasons.items():
        assert reason in found[name]
    params = sum(count_params(model.get_submodule(name)) for name in inventory.layers)
    assert params + sum(row.params for row in inventory.skipped) == count_params(model)


class Plain(nn.Module):
    """The head multiplies with the embedding's weight; or it is a layer that has that."""

    def __init__(self, is_layer: bool) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, WIDTH)
        if is_layer:
            self.head = nn.Linear(WIDTH, TOKENS, bias=False)
            self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = torch.tanh(self.inner(self.table(ids).cumsum(1)))
        return self.head(x) if "head" in self._modules else x @ self.table.weight.T


def test_a_head_that_is_no_layer_is_told_to_become_one() -> None:
    plain, layered = made(lambda: Plain(False)), made(lambda: Plain(True))
    layered.load_state_dict(plain.state_dict() | {"head.weight": plain.state_dict()["table.weight"]})
    (row,) = listed(plain).skipped
    assert row.name == "table"
    assert row.reason.endswith("an nn.Linear with that weight, where it is read, would be one layer with it")
    torch.testing.assert_close(layered(batches()[0]), plain(batches()[0]))
    assert [tie.name for tie in listed(layered).layers["head"].ties] == ["table"]
    assert count_params(layered) == count_params(plain)


# ---- trained, stored, deployed -----------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 0])
def test_a_searched_one_is_trained_exported_and_loaded(rank: int, tmp_path: Path) -> None:
    ids = torch.cat([each.flatten() for each in batches()])
    task = rs.LanguageModel(made(Speaker), ids, ids, length=6)
    choice = {"factorization": "svd", "rank": rank} if rank else "dense"
    seeds = {"dense": False, "allocations": 0, "points": [{"name": "mine", "layers": {"head": choice}}]}
    tables = {
        "study": {"name": "lm", "trials": 1, "store": str(tmp_path / "lm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"], "seeds": seeds},
        "training": {"epochs": 1},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    with rs.Store.open(result.store) as store:
        (row,) = store.trials("lm")
        rs.export_trial(store, "lm", row.number, tmp_path / "small", task=task)
        rs.pack_trial(store, "lm", row.number, tmp_path / "small.rsz", task=task)
        trained = rs.build_model(store, "lm", row.number, task=task)
    assert isinstance(trained.get_submodule("head"), Factorization) == (rank > 0)
    assert row.measurements["params"] == count_params(trained)
    batch = batches()[0][:1]
    for place in ("small", "small.rsz"):
        back = rs.load(tmp_path / place)
        torch.testing.assert_close(back(batch), trained(batch))
        kept = {id(each): each for each in [*back.parameters(), *back.buffers()]}
        assert sum(each.numel() for each in kept.values()) == count_params(trained)


def test_a_tied_weight_is_packed_as_a_parameter_is() -> None:
    model = made(Speaker)
    packed = rs.pack_model(model, batches(), example=batches()[0][:1])
    assert [row.name for row in packed.layers] == ["inner"]
    assert packed.model.get_submodule("head").weight is packed.model.get_submodule("table").weight
