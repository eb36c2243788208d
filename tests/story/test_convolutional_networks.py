"""A U-Net, MobileNetV2 and EfficientNet in small: accounted for, searched, exported and opened again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import rank_search as rs
from rank_search.export.formats import FORMATS
from rank_search.export.tracing import trace
from rank_search.layers import Layer, axes_of, count_params, load_plugin, take_inventory
from rank_search.point import Choice
from tests.layers.test_convolutions import choices, data, seeded, wander
from tests.layers.test_convolutions import network as with_all
from tests.story.convolutional import NETWORKS, images, network
from tests.story.test_sizes import Given

FORMS = ("svd-spatial", "tucker2", "svd")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_a_row(name: str) -> None:
    model = network(name)
    inventory = take_inventory(model, images(0, 1))
    weighted = {key for key, each in model.named_modules() if isinstance(each, nn.Linear | nn.modules.conv._ConvNd)}
    assert inventory.layers.keys() == weighted
    layers = [model.get_submodule(each) for each in inventory.layers]
    assert sum(map(count_params, layers)) + sum(each.params for each in inventory.skipped) == count_params(model)
    assert {each.kind for each in inventory.skipped} == {"BatchNorm2d"}
    rows = rs.layers(model, images(0, 1))
    assert sum(row.params for row in rows) == count_params(model)


def cut(layer: Layer) -> dict[str, object]:
    """The first form that applies, low."""
    form = next((form for form in FORMS if axes_of(load_plugin(form), layer)), None)
    if form is None:
        return {"factorization": "dense"}
    return {"factorization": form, **{axis.name: (axis.high + 2) // 3 for axis in load_plugin(form).axes(layer)}}


def _table(choice: Choice) -> dict[str, object]:
    return {"factorization": choice.factorization, **choice.values}


@pytest.mark.parametrize(
    ("name", "formats"),
    [("unet", ["safetensors", "onnx"]), ("mobilenet", ["safetensors"]), ("efficientnet", ["safetensors"])],
)
def test_it_is_searched_exported_and_opened_again(name: str, formats: list[str], tmp_path: Path) -> None:
    if "onnx" in formats:
        pytest.importorskip("onnxscript")
    model = network(name)
    layers = take_inventory(model, images(0, 1)).layers
    wanted = {key: cut(layer) for key, layer in layers.items()}
    assert all(each["factorization"] != "dense" for each in wanted.values())
    points = [{"name": "low", "layers": wanted}]
    study = {
        "study": {"name": "s", "trials": 2, "store": str(tmp_path / "s.sqlite")},
        "task": {"factory": "(in memory)"},
        "layers": {"factorizations": FORMS},
        "search": {"seeds": {"points": points, "allocations": 0, "fractions": [], "weakenings": []}},
        "training": {"epochs": 0},
        "folder": tmp_path,
    }
    task = Given(model, [images(1), images(2)])
    rs.run_study(rs.Study.model_validate(study), task=task)
    with rs.Store.open(tmp_path / "s.sqlite") as store:
        rows = store.trials(store.study("s"))
        low = next(row for row in rows if {key: _table(each) for key, each in row.point.layers.items()} == wanted)
        for format in formats:
            rs.export_trial(store, "s", low.number, tmp_path / format, format, task)
        rs.pack_trial(store, "s", low.number, tmp_path / "s.rsz", task)
    x = images(3, 2)
    with torch.no_grad():
        expected = rs.load(tmp_path / "safetensors")(x)
        assert expected.shape == model(x).shape
        torch.testing.assert_close(rs.load(tmp_path / "s.rsz")(x), expected, rtol=1e-3, atol=1e-4)
        if "onnx" in formats:
            torch.testing.assert_close(FORMATS["onnx"].read(tmp_path / "onnx", {})(x), expected, rtol=1e-3, atol=1e-4)


WRITTEN = [
    (1, "cp"),
    (1, "svd"),
    (1, "filter-basis"),
    (1, "block-svd-4"),
    (1, "kronecker-sum"),
    (1, "tensor-train"),
    (1, "buckets"),
    (1, "circulant-2"),
    (1, "symmetric-left-right"),
    (3, "svd-spatial"),
    (3, "tucker2"),
    (3, "filter-basis"),
    (3, "block-svd-8"),
    (3, "kronecker-sum"),
    (3, "tensor-train"),
    (3, "buckets"),
    (3, "circulant-4"),
    (3, "symmetric-flips"),
]


@pytest.mark.parametrize(("dimensions", "form"), WRITTEN)
def test_forms_of_other_dimensions_are_written_as_safetensors(dimensions: int, form: str, tmp_path: Path) -> None:
    """Their graph is read without the code of any plugin."""
    x = data(dimensions)
    model = wander(seeded(lambda: with_all(dimensions)), x)
    table = rs.options(model, [x], example=x[:1], layers={"factorizations": [form, "svd"]})
    made = rs.factorize(model, choices(model, x, form), table)
    assert any(isinstance(each, rs.Factorization) for each in made.modules())
    FORMATS["safetensors"].write(trace(made, x[:1]), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(FORMATS["safetensors"].read(tmp_path, {})(x), made(x))
