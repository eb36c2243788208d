"""A model is called on an example by position or by name, and tensors are found wherever they stand."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.basics import named_leaves
from rank_search.layers import Call, Example, count_params, forward, mean_macs, repeated, take_inventory, tensors_of
from rank_search.layers.calls import fresh, with_tensors


@dataclass(frozen=True)
class Pair:
    ids: Tensor
    mask: Tensor


class Both(NamedTuple):
    ids: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """Takes its inputs in whatever form `read` knows, and asks for the mask."""

    def __init__(self, read: Any = None) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(20, 16), nn.Linear(16, 32), nn.Linear(32, 3)
        self.read = read

    def forward(self, *args: Any, **named: Any) -> Tensor:
        ids, mask = self.read(*args, **named)
        x = torch.relu(self.inner(self.table(ids))) * mask[..., None]
        return self.head(x.sum(1))  # type: ignore[no-any-return]


IDS, MASK = torch.randint(20, (1, 6), generator=torch.Generator().manual_seed(0)), torch.ones(1, 6)
MASK[:, 4:] = 0
FORMS: dict[str, tuple[Example, Any]] = {
    "tuple": ((IDS, MASK), lambda ids, mask: (ids, mask)),
    "dictionary": ({"mask": MASK, "ids": IDS}, lambda *, ids, mask: (ids, mask)),
    "mapping": (UserDict(ids=IDS, mask=MASK), lambda *, ids, mask: (ids, mask)),
    "dataclass": (Pair(IDS, MASK), lambda pair: (pair.ids, pair.mask)),
    "list": ([IDS, MASK], lambda pair: pair),
    "dictionary by position": (({"ids": IDS, "mask": MASK},), lambda batch: (batch["ids"], batch["mask"])),
    "nested": (
        {"batch": {"ids": IDS, "more": [MASK]}, "flag": True},
        lambda *, batch, flag: (batch["ids"], batch["more"][0]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_examples_of_every_form_count_the_same(form: str) -> None:
    example, read = FORMS[form]
    torch.manual_seed(0)
    model, plain = Encoder(read).eval(), Encoder(FORMS["tuple"][1]).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(forward(model, example), plain(IDS, MASK))
    assert mean_macs(model, [example]) == mean_macs(plain, [(IDS, MASK)]) == 6 * 16 * 32 + 32 * 3
    found, expected = take_inventory(model, example), take_inventory(plain, (IDS, MASK))
    assert found.layers == expected.layers
    assert {*found.layers} == {"table", "inner", "head"}
    assert rs.layers(model, example).total.params == count_params(model)
    moved = [forward(model, repeated(example, 3)), plain(IDS.repeat(3, 1), MASK.repeat(3, 1))]
    torch.testing.assert_close(*moved)


@pytest.mark.parametrize("value", [example for example, _ in FORMS.values()] + [Both(IDS, MASK), OrderedDict(a=IDS)])
def test_containers_keep_their_types(value: Any) -> None:
    made = with_tensors(value, lambda each: each + 1)
    assert type(made) is type(value)
    assert [torch.equal(new, old + 1) for new, old in zip(tensors_of(made), tensors_of(value), strict=True)]
    assert [name for name, _ in named_leaves(made)] == [name for name, _ in named_leaves(value)]
    copies = tensors_of(fresh(value))
    assert all(torch.equal(*pair) for pair in zip(copies, tensors_of(value), strict=True))
    assert {id(each) for each in copies}.isdisjoint(map(id, tensors_of(value)))


def test_a_call_is_by_name_for_mappings_alone() -> None:
    assert Call.of(OrderedDict(ids=1)).named == {"ids": 1}
    assert Call.of(Pair(IDS, MASK)).positional == (Pair(IDS, MASK),)
    assert Call.of(call := Call((1,), {"a": 2})) is call


def test_an_input_that_is_no_batch_is_not_repeated() -> None:
    ids, order = torch.zeros(1, 4), torch.arange(4)
    found = repeated((ids, order), 3)
    assert found[0].shape == (3, 4)
    assert torch.equal(found[1], order)
