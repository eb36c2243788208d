"""What a form computes, written down as text, is what it computes; also where operations give back what they got."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rank_search.export.recorded import recorded
from rank_search.layers import DirectBases, Layer, load_plugin

LINEAR = Layer("x", "linear", (6, 8), inputs=((2, 8),))
FORMS: list[tuple[str, dict[str, float]]] = [
    ("svd", {"rank": 3}),
    ("soft-threshold", {"folds": 5.0}),
    ("soft-rank", {"rank": 3, "folds": 5.0}),
]


@pytest.mark.parametrize(("name", "values"), FORMS, ids=[name for name, _ in FORMS])
def test_what_is_written_down_is_computed(name: str, values: dict[str, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(size, 8, generator=generator) for size in (6, 5))
    form = load_plugin(name)(LINEAR, **values)
    form.fit(weight, DirectBases(weight))
    assert form.bias is not None
    torch.nn.init.ones_(form.bias)
    written = recorded(form)
    space: dict[str, Any] = {"torch": torch}
    exec(written.function("f", "A form."), space)
    state = form.state_dict()
    assert torch.allclose(space["f"](x, *(state[each] for each in written.takes)), form(x), atol=1e-6)
