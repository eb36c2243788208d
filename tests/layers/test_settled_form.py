"""A factorization without its empty components: the same weight, smaller values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rank_search.errors import ContractError
from rank_search.layers import Factorization, Layer, adds_up, load_plugin, settled_form
from tests.emptied import (
    AtLeastTwo,
    Gated,
    Indexed,
    Masked,
    OneMore,
    Pair,
    RefusesFive,
    Ring,
    Summed,
    TooLarge,
    drawn,
)

LINEAR = Layer("", "linear", (8, 7))
CONV = Layer("", "conv2d", (8, 6, 3, 3), inputs=((2, 6, 5, 5),))
GROUPED = Layer("", "conv2d", (8, 3, 3, 3), groups=2, inputs=((2, 6, 5, 5),))


def emptied(form: Factorization, factor: str, mode: int, *places: int) -> Factorization:
    with torch.no_grad():
        form.get_parameter(factor).movedim(mode, 0)[list(places)] = 0
    return form


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "values"),
    [
        (emptied(drawn("svd", LINEAR, rank=5), "left", 1, 0, 3), {"rank": 3}),
        (emptied(drawn("svd", GROUPED, rank=3), "right", 0, 1, 4), {"rank": 2}),
        (emptied(drawn("svd-spatial", CONV, rank=4), "across", 1, 2), {"rank": 3}),
        (emptied(drawn("tucker2", CONV, rank_out=4, rank_in=3), "core", 0, 1, 2), {"rank_out": 2, "rank_in": 3}),
        (emptied(drawn("tucker2", CONV, rank_out=4, rank_in=3), "inner", 1, 0), {"rank_out": 4, "rank_in": 2}),
        (emptied(drawn("cp", CONV, rank=6), "space", 1, 0, 5), {"rank": 4}),
        (emptied(emptied(drawn(Ring, LINEAR, rank=3), "one", 0, 1), "one", 2, 1), {"rank": 2}),
        (emptied(drawn(Indexed, LINEAR, rank=4), "right", 0, 3), {"rank": 3}),
    ],
)
def test_what_is_all_zero_is_dropped(form: Factorization, values: dict[str, int]) -> None:
    before = {name: tensor.clone() for name, tensor in form.state_dict().items()}
    small = settled_form(form).form
    assert dict(small.values) == values
    assert close(small.dense(), form.dense())
    assert all(torch.equal(tensor, before[name]) for name, tensor in form.state_dict().items())
    type(form)(form.layer, **small.values).load_state_dict(small.state_dict())
    for shape in form.layer.inputs:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(small(x), form(x), rtol=1e-4, atol=1e-4)


def test_what_is_alive_stays_as_it_is() -> None:
    form = drawn("tucker2", CONV, rank_out=4, rank_in=3)
    found = settled_form(form)
    assert found.form is form
    assert {name: [len(kept) for kept in each] for name, each in found.places.items()} == {
        name: list(tensor.shape) for name, tensor in form.state_dict().items()
    }


def test_dropping_one_axis_may_empty_the_other() -> None:
    form = drawn("tucker2", CONV, rank_out=4, rank_in=3)
    emptied(form, "outer", 1, 0, 1)
    with torch.no_grad():
        form.get_parameter("core")[2:, 1] = 0  # of what is left of rank_out, rank_in's second is all zero
    assert dict(settled_form(form).form.values) == {"rank_out": 2, "rank_in": 2}


def test_places_say_what_is_left_of_each_tensor() -> None:
    form = emptied(drawn("svd", GROUPED, rank=3), "left", 1, 1)
    found = settled_form(form)
    left, right = found.places["left"], found.places["right"]
    assert [each.tolist() for each in left] == [list(range(8)), [0, 2]]
    assert right[0].tolist() == [0, 2, 3, 5]


def test_where_all_is_empty_one_component_stays() -> None:
    form = emptied(drawn("cp", CONV, rank=4), "inner", 1, 0, 1, 2, 3)
    small = settled_form(form).form
    assert dict(small.values) == {"rank": 1}
    assert not bool(small.dense().any())


@pytest.mark.parametrize(
    ("plugin", "round_to", "expected"), [(Pair, 1, 3), (AtLeastTwo, 1, 3), (Pair, 2, 4), (Pair, 4, 4), (Pair, 5, 5)]
)
def test_values_are_multiples_above_what_is_alive(plugin: type[Factorization], round_to: int, expected: int) -> None:
    form = emptied(drawn(plugin, LINEAR, rank=6), "left", 1, 0, 2, 4)
    small = settled_form(form, round_to).form
    assert dict(small.values) == {"rank": expected}
    assert close(small.dense(), form.dense())


def test_values_stay_in_the_range_of_the_axis() -> None:
    form = emptied(drawn(AtLeastTwo, LINEAR, rank=6), "right", 0, 0, 1, 2, 3, 4)
    assert dict(settled_form(form).form.values) == {"rank": 2}


def test_a_value_that_is_refused_is_passed_over() -> None:
    form = emptied(drawn(RefusesFive, LINEAR, rank=7), "left", 1, 0, 1)
    small = settled_form(form).form
    assert dict(small.values) == {"rank": 6}
    assert close(small.dense(), form.dense())


@pytest.mark.parametrize("form", [drawn(Summed, LINEAR, rank=4), drawn(Ring, LINEAR, rank=4)])
def test_a_form_that_would_be_another_weight_is_left_alone(form: Factorization) -> None:
    emptied(form, *(("left", 1) if isinstance(form, Summed) else ("one", 0)), 0)
    assert settled_form(form).form is form


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_too_only_what_is_empty_is_dropped(dtype: torch.dtype) -> None:
    other = emptied(drawn(Summed, LINEAR, rank=4), "left", 1, 0).to(dtype)
    assert settled_form(other).form is other
    form = emptied(drawn("tucker2", CONV, rank_out=4, rank_in=3), "core", 0, 1, 2).to(dtype)
    small = settled_form(form).form
    assert dict(small.values) == {"rank_out": 2, "rank_in": 3}
    assert {each.dtype for each in small.parameters()} == {dtype}


def test_modes_that_are_to_stay_whole_are_not_cut() -> None:
    form = emptied(drawn("svd", LINEAR, rank=5), "left", 1, 0)
    assert settled_form(form, whole={("left", 1)}).form is form
    assert settled_form(form, whole={("left", 0)}).form is not form


def test_what_goes_wrong_beside_a_refusal_is_not_hidden() -> None:
    form = emptied(drawn(TooLarge, LINEAR, rank=5), "left", 1, 0)
    with pytest.raises(MemoryError):
        settled_form(form)


@pytest.mark.parametrize("mask", [torch.tensor([True, False]), torch.tensor([1, 0, 1, 1])])
def test_what_is_no_mask_of_the_components_is_refused(mask: Tensor) -> None:
    form = drawn(Masked, LINEAR, rank=4)
    form.mask = mask
    with pytest.raises(ContractError, match=r"Masked.kept\(\) has \[.\] torch.* for rank, not a mask of its 4"):
        settled_form(form)


def test_a_plugin_that_means_something_else_by_kept_is_named() -> None:
    form = drawn(Pair, LINEAR, rank=4)
    vars(form)["kept"] = 4
    with pytest.raises(ContractError, match=r"Pair.kept\(\) for .* raised TypeError: 'int' object is not callable"):
        settled_form(form)


def test_components_beside_other_slices_are_not_cut() -> None:
    form = drawn(OneMore, LINEAR, rank=4)
    form.mask = torch.tensor([True, False, True, True])
    assert settled_form(form).form is form


def test_a_plugin_folds_its_gates_and_says_what_they_keep() -> None:
    form = drawn(Gated, LINEAR, rank=4)
    with torch.no_grad():
        form.get_parameter("gate").copy_(torch.tensor([1.0, -1.0, 2.0, 0.0]))
        before = form.dense().clone()
        form.fold()
    small = settled_form(form).form
    assert dict(small.values) == {"rank": 2}
    assert small.get_parameter("gate").tolist() == [1.0, 1.0]
    assert close(small.dense(), before)


def test_a_settled_form_is_as_trainable_and_in_the_same_mode_and_dtype() -> None:
    form = emptied(drawn("svd", LINEAR, rank=5), "left", 1, 0).eval().requires_grad_(False).double()
    small = settled_form(form).form
    assert not small.training
    assert all(not each.requires_grad and each.dtype == torch.float64 for each in small.parameters())


def test_each_number_of_a_settled_form_keeps_its_own_dtype() -> None:
    """The threshold of a form in half precision is in single precision."""
    form = drawn("soft-rank", Layer("", "linear", (8, 7), dtype=torch.bfloat16), rank=5, folds=4)
    emptied(form, "left", 1, 0)
    with torch.no_grad():
        form.get_parameter("s").fill_(-6.123)
    small = settled_form(form).form
    assert small is not form
    assert torch.equal(small.get_parameter("s"), form.get_parameter("s"))
    assert small.get_parameter("left").dtype == torch.bfloat16


def test_a_settled_form_shares_no_memory_with_the_one_it_is_of() -> None:
    form = emptied(drawn("svd", LINEAR, rank=5), "left", 1, 0)
    small = settled_form(form).form
    own = {each.untyped_storage().data_ptr() for each in form.parameters()}
    assert not own & {each.untyped_storage().data_ptr() for each in small.parameters()}


@pytest.mark.parametrize(
    ("form", "axis", "expected"),
    [
        (drawn("svd", GROUPED, rank=3), "rank", True),
        (drawn("tucker2", CONV, rank_out=4, rank_in=3), "rank_in", True),
        (drawn(Ring, LINEAR, rank=3), "rank", True),
        (drawn("buckets", LINEAR, buckets=30), "buckets", False),
        (drawn("buckets", LINEAR, buckets=1), "buckets", True),  # there is nothing to leave out
        (drawn(RefusesFive, LINEAR, rank=6), "rank", True),
    ],
)
def test_components_add_up_where_zeros_do_what_leaving_them_out_does(
    form: Factorization, axis: str, expected: bool
) -> None:
    assert adds_up(form, axis) is expected


def test_whether_they_add_up_is_told_without_a_draw_from_the_global_generator() -> None:
    """The answer is kept, so that a draw would make what is drawn next depend on what was asked before."""

    class Begun(Pair):
        def __init__(self, layer: Layer, *, rank: int) -> None:
            super().__init__(layer, rank=rank)
            torch.nn.init.normal_(self.left)

    form, before = Begun(LINEAR, rank=3), torch.get_rng_state()
    assert adds_up(form, "rank")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_weight_with_nan_does_not_settle() -> None:
    form = emptied(drawn("svd", LINEAR, rank=5), "left", 1, 0)
    with torch.no_grad():
        form.get_parameter("left")[0, 1] = torch.nan
    assert settled_form(form).form is form


def test_a_plugin_without_tensors_of_an_axis_does_not_settle() -> None:
    form = load_plugin("svd")(LINEAR, rank=1)
    assert settled_form(form).form is form
