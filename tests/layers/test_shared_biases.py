"""A layer whose bias other modules have as their own parameter, too: factorized, it is still the one parameter."""

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
from rank_search.coding import encode
from rank_search.layers import (
    DirectBases,
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
from tests.pretrained_models import modules_in, pretrained, token_ids
from tests.tasks.test_masked_language_models import made as masked_task

TOKENS, WIDTH = 40, 12
SVD = {"svd": load_plugin("svd")}
POINT = Point({"words.head": Choice("svd", {"rank": 4})})


class Words(nn.Module):
    """A head whose bias is a parameter of its own, and which adds it a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(TOKENS))
        self.head = nn.Linear(WIDTH, TOKENS)
        self.head.bias = self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) + self.bias  # type: ignore[no-any-return]


class Speaker(nn.Module):
    """The head's weight is that of the embedding, and one more module has its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.words = nn.Embedding(TOKENS, WIDTH), nn.Linear(WIDTH, WIDTH), Words()
        self.words.head.weight = self.table.weight
        self.more = nn.ParameterList([self.words.bias, torch.randn(WIDTH)])

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(torch.tanh(self.inner(self.table(ids).cumsum(1)) + self.more[1]))  # type: ignore[no-any-return]


def speaker() -> nn.Module:
    torch.manual_seed(0)
    return Speaker().eval()


def ids(count: int = 4) -> Tensor:
    return torch.randint(TOKENS, (count, 6), generator=torch.Generator().manual_seed(1))


def layers_of(model: nn.Module) -> Any:
    return take_inventory(model, ids(1)).layers


def cut(model: nn.Module, point: Point = POINT) -> nn.Module:
    return factorize(model, point, layers_of(model), SVD, lambda name: DirectBases(weight_of(model, name)))


def biases(model: nn.Module) -> list[nn.Parameter]:
    named = dict(model.named_parameters(remove_duplicate=False))
    return [named[name] for name in ("words.bias", "words.head.bias", "more.0")]


def is_shared(model: nn.Module) -> bool:
    return len({id(each) for each in biases(model)}) == 1


def dense_like(model: nn.Module, cut: nn.Module) -> nn.Module:
    """The model with what the form stands for, and all other parameters of the factorized one."""
    found = copy.deepcopy(model)
    own = found.state_dict()
    found.load_state_dict(own | {name: each for name, each in cut.state_dict().items() if name in own})
    with torch.no_grad():
        found.get_parameter("table.weight").copy_(cut.get_submodule("words.head").weight)  # type: ignore[arg-type]
    return found


def test_the_layer_is_listed_with_its_tie_and_its_bias() -> None:
    model, example = speaker(), ids(1)
    layers = layers_of(model)
    assert [tie.name for tie in layers["words.head"].ties] == ["table"]
    rows = rs.layers(model, example)
    assert rows["words.head"].params == TOKENS * WIDTH + TOKENS
    assert (rows["words.bias"].params, rows["table"].params) == (0, 0)


def test_costs_are_those_of_one_bias() -> None:
    model, example = speaker(), ids(1)
    table, forms = rs.options(model, example=example), cut(model)
    costs = {"params": count_params(forms), "macs": mean_macs(forms, [example])}
    assert table.total(table.describe(POINT)) == costs
    for each in (model, forms, cut(model, Point({"inner": Choice("svd", {"rank": 2})}))):
        rows = rs.layers(each, example)
        assert sum(row.params for row in rows) == count_params(each) == rows.total.params


def test_it_is_one_parameter_in_the_factorized_model_and_its_copies() -> None:
    model = speaker()
    forms = cut(model)
    bare = skeleton(model, POINT, layers_of(model), SVD)
    bare.load_state_dict(forms.state_dict())
    found = (forms, bare, copy.deepcopy(forms), pickle.loads(pickle.dumps(forms)))
    assert {*forms.state_dict()} - {"words.head.left", "words.head.right"} == {*model.state_dict()} - {
        "words.head.weight",
        "table.weight",
    }
    for each in found:
        assert is_shared(each)
        assert biases(each)[0] is not biases(model)[0]
        with torch.no_grad():
            biases(each)[0].add_(1.0)
        torch.testing.assert_close(each(ids()), dense_like(model, each)(ids()), rtol=1e-4, atol=1e-4)
    assert is_shared(model)


def test_its_gradient_is_that_of_all_its_uses() -> None:
    model = speaker()
    forms = cut(model)
    dense = dense_like(model, forms)
    for each in (forms, dense):
        F.cross_entropy(each(ids()).flatten(0, 1), ids().flatten()).backward()
    torch.testing.assert_close(biases(forms)[0].grad, biases(dense)[0].grad, rtol=1e-4, atol=1e-6)


def test_put_together_again_it_is_the_models() -> None:
    model = speaker()
    forms = cut(model)
    with torch.no_grad():
        biases(forms)[0].mul_(2.0)
    again = recompose(forms, model, layers_of(model))
    assert is_shared(again)
    assert count_params(again) == count_params(model)
    torch.testing.assert_close(again(ids()), forms(ids()), rtol=1e-4, atol=1e-4)


def test_it_is_stored_once() -> None:
    state = cut(speaker()).state_dict()
    apart = {name: each.clone() + number for number, (name, each) in enumerate(state.items())}
    assert len(encode(apart)) - len(encode(state)) > 1.5 * 4 * TOKENS  # two more of them


def two_layers(model: Any) -> None:
    model.inner = nn.Linear(WIDTH, TOKENS)
    model.inner.bias = model.words.bias


def in_an_operation(model: Any) -> None:
    model.rnn = nn.LSTM(3, TOKENS // 4)
    model.rnn.bias_ih_l0 = model.words.bias


def a_part(model: Any) -> None:
    model.register_buffer("whole", torch.randn(2, TOKENS))
    model.words.bias.data = model.whole[0]


@pytest.mark.parametrize(
    ("change", "others"), [(two_layers, "inner.bias"), (in_an_operation, "rnn.bias_ih_l0"), (a_part, "whole")]
)
def test_a_bias_that_would_not_stay_shared_is_left_alone(change: Callable[[Any], None], others: str) -> None:
    model = speaker()
    change(model)
    inventory = take_inventory(model, ids(1)) if change is not two_layers else take_inventory(Unused(model), ids(1))
    reasons = {row.name.removeprefix("inside."): row.reason for row in inventory.skipped}
    assert "its bias is tied to" in reasons["words.head"]
    assert others in reasons["words.head"]


class Unused(nn.Module):
    """A model whose inner layer has other outputs, and is not called."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, ids: Tensor) -> Tensor:
        return self.inside.words(self.inside.table(ids))  # type: ignore[no-any-return]


# ---- BERT ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, 1])
def test_berts_head_is_searched_exported_packed_and_loaded(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    modules_in(tmp_path / "modules", monkeypatch)
    model, _ = pretrained("bert")
    task, head = masked_task(model), "cls.predictions.decoder"
    points = [{"name": "mine", "layers": {head: {"factorization": "svd", "rank": 5}}}]
    tables = {
        "study": {"name": "mlm", "trials": 1, "store": str(tmp_path / "mlm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"], "seeds": {"dense": False, "allocations": 0, "points": points}},
        "training": {"epochs": epochs},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    confirmed = rs.confirm(result.store, "mlm", epochs=epochs + 1, task=task)
    with rs.Store.open(result.store) as store:
        (row,) = store.trials("mlm")
        small = rs.build_model(store, "mlm", row.number, task)
        for place, format in (("graph", "safetensors"), ("folder", "transformers")):
            rs.export_trial(store, "mlm", row.number, tmp_path / place, format, task=task)
        rs.pack_trial(store, "mlm", row.number, tmp_path / "small.rsz", task=task)
    assert row.measurements["params"] == count_params(small)
    assert [each.measurements["params"] for each in confirmed.front] == [count_params(small)]
    assert small.get_parameter(f"{head}.bias") is small.get_parameter("cls.predictions.bias")
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "folder", trust_remote_code=True)
    assert count_params(back) == count_params(small)
    back.tie_weights()
    assert back.get_parameter(f"{head}.bias") is back.get_parameter("cls.predictions.bias")
    batch = token_ids(2, 9, seed=3)
    with torch.no_grad():
        wanted = small(input_ids=batch).logits
        torch.testing.assert_close(back(input_ids=batch).logits, wanted, rtol=1e-5, atol=1e-6)
        for place in ("graph", "small.rsz"):
            loaded = rs.load(tmp_path / place)
            torch.testing.assert_close(loaded(input_ids=batch)["logits"], wanted, rtol=1e-4, atol=1e-5)
            kept = {id(each): each.numel() for each in (*loaded.parameters(), *loaded.buffers())}
            extra = sum(each.numel() for name, each in small.named_buffers())
            assert sum(kept.values()) <= count_params(small) + extra
