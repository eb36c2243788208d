"""What a form computes, written down as text, is what it computes; also where operations give back what they got."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rank_search.export.recorded import recorded
from rank_search.layers import DirectBases, Layer, load_plugin

LINEAR = Layer("x", "linear", (6, 8), inputs=((2, 8),))
CONV = Layer("x", "conv2d", (6, 8, 3, 3), stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1))
WIDE = Layer("x", "conv2d", (32, 32, 3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1))
FORMS: list[tuple[Layer, str, dict[str, float]]] = [
    (LINEAR, "svd", {"rank": 3}),
    (LINEAR, "soft-threshold", {"folds": 5.0}),
    (LINEAR, "soft-rank", {"rank": 3, "folds": 5.0}),
    (LINEAR, "kronecker-sum", {"rank": 2}),
    (CONV, "kronecker-sum", {"rank": 2}),
    (LINEAR, "tensor-train", {"rank_1": 2, "rank_2": 1}),
    (CONV, "tensor-train", {"rank_1": 2, "rank_2": 1}),
    (CONV, "buckets", {"buckets": 20}),
    (CONV, "circulant-2", {"order": 2}),
    (CONV, "symmetric-left-right", {"order": 2}),
    (WIDE, "symmetric-quarter-turns", {"order": 4}),
]
SIZES: dict[Layer, list[tuple[int, ...]]] = {
    LINEAR: [(5, 8), (8,), (2, 3, 8)],
    CONV: [(5, 8, 7, 6), (1, 8, 3, 4)],
    WIDE: [(2, 32, 5, 6)],
}


@pytest.mark.parametrize(("layer", "name", "values"), FORMS, ids=lambda each: each if isinstance(each, str) else "")
def test_what_is_written_down_is_computed(layer: Layer, name: str, values: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(layer.shape, generator=generator)
    form = load_plugin(name)(layer, **values)
    form.fit(weight, DirectBases(weight))
    assert form.bias is not None
    torch.nn.init.ones_(form.bias)
    written = recorded(form)
    space: dict[str, Any] = {"torch": torch}
    exec(written.function("f", "A form."), space)
    state = form.state_dict()
    for size in SIZES[layer]:
        x = torch.randn(size, generator=generator)
        computed = space["f"](x, *(state[each] for each in written.takes))
        assert torch.allclose(computed, layer.operate(x, form.dense(), form.bias), atol=1e-5)
