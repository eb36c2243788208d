"""Whether tensors have numbers in common, beside every number's own address."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rank_search.layers.overlap import overlap, place_of


def addresses(tensor: Tensor) -> set[int]:
    places = torch.arange(64).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return set(places.flatten().tolist())


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_what_has_a_number_in_common_overlaps_and_blocks_of_columns_are_told_apart(data: st.DataObject) -> None:
    whole = torch.zeros(6, 8)

    def part() -> Tensor:
        rows, columns = (sorted(data.draw(st.tuples(*[st.integers(0, most)] * 2))) for most in (6, 8))
        found = whole[rows[0] : rows[1], columns[0] : columns[1]]
        return found.T if data.draw(st.booleans()) else found

    one, other = part(), part()
    truly = bool(addresses(one) & addresses(other))
    said = any(overlap(a, b) for a in place_of(one) for b in place_of(other))
    assert said or not truly
    apart_in_columns = not {each % 8 for each in addresses(one)} & {each % 8 for each in addresses(other)}
    tall = min(*(sorted(each.shape)[0] for each in (one, other)), 2) > 1
    assert not (said and apart_in_columns and tall)


@given(st.tuples(*[st.integers(1, 4)] * 3), st.permutations(range(3)), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_of_three_dimensions_nothing_is_missed(
    shape: tuple[int, int, int], order: list[int], first: int, second: int
) -> None:
    whole = torch.zeros(shape).permute(order)
    one, other = whole.narrow(0, 0, min(first, len(whole))), whole.narrow(-1, 0, min(second, whole.shape[-1]))
    truly = bool(addresses(one) & addresses(other))
    assert any(overlap(a, b) for a in place_of(one) for b in place_of(other)) or not truly
