"""A written model answers rightly for a size, or says that it was not exported for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export.asked import places_asked
from rank_search.export.compared import Beside, distance
from rank_search.export.formats import FORMATS
from rank_search.export.tracing import trace
from rank_search.programs.conditions import condition_of, shown, value_of
from rank_search.programs.sizes import sizes_in


class Mean(nn.Module):
    """Its graph divides by the length, which is a number if the length is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x).relu().sum(1) / x.shape[1])  # type: ignore[no-any-return]


class Resize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(self.c(self.a(x).relu()), size=x.shape[-2:], mode="nearest")


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.a = nn.Embedding(50, 8), nn.Linear(8, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.a(self.e(input_ids)) * attention_mask[..., None] / input_ids.shape[1]  # type: ignore[no-any-return]


class Even(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[1] % 2 == 0 else x


class Short(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[1] > 16 else x


class Ten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 10, 8) * 2


class CountsRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / len(x)


class Samples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return self.out(y + torch.randn(y.shape)), F.dropout(y, 0.5, training=True)


def loaded(model: nn.Module, example: Tensor | tuple[Tensor, ...], folder: Path, *dynamic: str) -> nn.Module:
    """A model as it is read back from the safetensors format, verified."""
    model.eval()
    inputs = example if isinstance(example, tuple) else (example,)
    traced = trace(model, example, places_asked(dynamic, model, inputs))
    FORMATS["safetensors"].write(traced, folder)
    back = FORMATS["safetensors"].read(folder, json.loads(json.dumps({"sizes": traced.sizes.to_json()})))
    Beside.of(model, back, traced.sizes).check(example)
    return back


@pytest.mark.parametrize(
    ("model", "example", "other", "complaint"),
    [
        (Mean(), torch.randn(1, 10, 8), torch.randn(4, 20, 8), "'x' has size 20 in dimension 1; .* size 10"),
        (Resize(), torch.randn(1, 3, 8, 8), torch.randn(2, 3, 8, 12), "'x' has size 12 in dimension 3; .* size 8"),
        (CountsRows(), torch.randn(1, 3), torch.randn(2, 3), "'x' has size 2 in dimension 0; .* size 1"),
        (Mean(), torch.randn(1, 10, 8), torch.randn(10, 8), "'x' has 2 dimensions; it was exported with 3"),
    ],
)
def test_other_sizes_are_refused(
    model: nn.Module, example: Tensor, other: Tensor, complaint: str, tmp_path: Path
) -> None:
    back = loaded(model, example, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(back(example), model(example))
        with pytest.raises(rs.RankSearchError, match=complaint):
            back(other)


@pytest.mark.parametrize(
    ("model", "example", "dynamic"),
    [
        (Mean(), (torch.randn(1, 10, 8),), ["1"]),
        (Mean(), (torch.randn(1, 1, 8),), ["x:1"]),
        (Resize(), (torch.randn(1, 3, 8, 8),), ["x:2", "x:-1"]),
        (Masked(), (torch.randint(50, (1, 7)), torch.ones(1, 7)), ["input_ids:1", "1:1"]),
    ],
)
def test_dynamic_sizes_are_answered_rightly(
    model: nn.Module, example: tuple[Tensor, ...], dynamic: list[str], tmp_path: Path
) -> None:
    back = loaded(model, example, tmp_path, *dynamic)
    for batch, times in ((1, 1), (2, 2), (3, 5)):
        inputs = tuple(
            each.repeat(batch, *[times if size > 3 or size == 1 else 1 for size in each.shape[1:]]) for each in example
        )
        inputs = tuple(each[..., : 8 if isinstance(model, Mean) else None] for each in inputs)
        with torch.no_grad():
            torch.testing.assert_close(back(*inputs), model(*inputs))


def test_dimensions_that_must_be_equal_are(tmp_path: Path) -> None:
    back = loaded(Masked(), (torch.randint(50, (1, 7)), torch.ones(1, 7)), tmp_path, "1")
    with pytest.raises(
        ExportError, match="'attention_mask' has size 8 in dimension 1, but input 'input_ids' has size 9"
    ):
        back(torch.randint(50, (2, 9)), torch.ones(2, 8))
    named = {"attention_mask": torch.ones(2, 9), "input_ids": torch.randint(50, (2, 9))}
    assert back(**named).shape == (2, 9, 5)


@pytest.mark.parametrize(
    ("model", "right", "wrong", "complaint"),
    [(Even(), 12, 11, r"break x\.size\(1\) % 2 == 0"), (Short(), 16, 17, "sizes from 2 to 16")],
)
def test_what_a_branch_took_for_granted_is_checked(
    model: nn.Module, right: int, wrong: int, complaint: str, tmp_path: Path
) -> None:
    back = loaded(model, torch.randn(1, 8, 3), tmp_path, "1")
    for size in (8, right):
        x = torch.randn(2, size, 3)
        torch.testing.assert_close(back(x), model(x))
    with pytest.raises(ExportError, match=complaint):
        back(torch.randn(2, wrong, 3))


def test_a_dimension_that_cannot_be_dynamic_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Dimension 1 of input 'x' cannot be dynamic: torch\.export fixes it at 10"):
        loaded(Ten(), torch.randn(1, 10, 8), tmp_path, "1")
    for word in ("y:1", "3", "x:9", "x:one", "one", ""):
        with pytest.raises(ExportError, match=r"INPUT:DIMENSION or none; found .* The inputs are x \(1, 10, 8\)"):
            loaded(Mean(), torch.randn(1, 10, 8), tmp_path, word)


@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_random_numbers_are_drawn_alike(format: str, tmp_path: Path) -> None:
    model, example = Samples().eval(), torch.randn(1, 8)
    traced = trace(model, example)
    FORMATS[format].write(traced, tmp_path)
    back = FORMATS[format].read(tmp_path, {})
    Beside.of(model, back, traced.sizes).check(example)
    with torch.no_grad():
        torch.manual_seed(3)
        expected = model(example)
        torch.manual_seed(3)
        torch.testing.assert_close(back(example), expected)


# ---- files of before -------------------------------------------------------------------------------------


def test_a_manifest_without_sizes_means_the_example() -> None:
    old = {"inputs": [[1, 10, 8], [1, 10]], "any_batch": True}
    sizes = sizes_in(old)
    assert sizes is not None
    assert sizes.complaint([(5, 10, 8), (5, 10)]) == ""
    assert "size 20 in dimension 1" in sizes.complaint([(5, 20, 8), (5, 20)])
    fixed = sizes_in({**old, "any_batch": False})
    assert fixed is not None
    assert "size 5 in dimension 0" in fixed.complaint([(5, 10, 8), (5, 10)])
    assert sizes_in({}) is None


@pytest.mark.parametrize(
    "sizes",
    [
        3,
        {},
        {"names": ["x"], "shapes": [[None]], "ranges": {}, "conditions": []},
        {"names": [], "shapes": [[1]], "ranges": {}, "conditions": []},
        {"names": ["x"], "shapes": [["n"]], "ranges": {"n": "all"}, "conditions": []},
        {"names": ["x"], "shapes": [[1]], "ranges": {}, "conditions": [["size", 7, 7]]},
    ],
)
def test_damaged_sizes_are_refused(sizes: Any) -> None:
    with pytest.raises(ExportError, match="sizes in the model's manifest cannot be read"):
        sizes_in({"sizes": sizes})


@given(a=st.integers(1, 40), b=st.integers(1, 40))
@settings(deadline=None)
def test_conditions_are_the_arithmetic_that_they_are_written_in(a: int, b: int) -> None:
    for text in (
        "(L['x'].size()[0] % 2) == 0",
        "(8*L['x'].size()[1]*L['x'].size()[0]) == (16*L['x'].size()[0]*(L['x'].size()[1] // 2))",
        "L['x'].size()[1] - 1 <= 16 or not L['x'].size()[0] != 3",
        "max(1, L['x'].size()[0]) > -L['x'].size()[1] + 4",
    ):
        condition = condition_of(text, ["x"])
        expected = eval(text.replace("L['x'].size()", "sizes"), {"sizes": (a, b)})
        assert value_of(condition, [(a, b)]) == expected
        again = eval(
            shown(condition, ["x"]).replace("x.size(0)", str(a)).replace("x.size(1)", str(b)).replace("negative", "-")
        )
        assert again == expected


@pytest.mark.parametrize("text", ["__import__('os')", "L['x'].stride()[0] == 1", "f(3)", "'a' < 3", "L['y'].size()[0]"])
def test_nothing_but_arithmetic_is_a_condition(text: str) -> None:
    with pytest.raises(ValueError, match="no arithmetic on sizes"):
        condition_of(text, ["x"])


def test_conditions_on_several_inputs_of_one_parameter() -> None:
    condition = condition_of("L['rest'][1].size()[0] == L['x'].size()[2]", ["x", "rest_0", "rest_1"])
    assert condition == ["==", ["size", 2, 0], ["size", 0, 2]]
    with pytest.raises(ValueError, match="rest_2 is no input"):
        condition_of("L['rest'][2].size()[0] == 1", ["x", "rest_0", "rest_1"])


def test_distances_of_numbers_that_are_none() -> None:
    inf, nan = float("inf"), float("nan")
    assert distance(torch.tensor([1.0, -inf, nan]), torch.tensor([1.0, -inf, nan])) == 0.0
    assert distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, nan])) == inf
    assert distance(torch.tensor([1.0, -inf]), torch.tensor([1.0, 2.0])) == inf
    assert distance(torch.tensor([1j]), torch.tensor([-1j])) == 2.0
    assert distance(torch.ones(2), torch.ones(3)) == inf


# ---- studies ---------------------------------------------------------------------------------------------


class Given(rs.Task):
    """A task of a network and its batches; evaluate() calls it with keywords if they are dictionaries."""

    def __init__(self, network: nn.Module, batches: list[Any]) -> None:
        self.network, self.batches = network.eval(), batches

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        first = self.batches[0]
        return tuple(each[:1] for each in first.values()) if isinstance(first, dict) else first[:1]

    def training(self) -> Iterable[Any]:
        return self.batches

    selection = test = training

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        found = model(**batch) if isinstance(batch, dict) else model(batch)
        return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self.outputs(model, batch).square().mean()

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, float]:
        return {"error": float(sum(self.outputs(model, batch).float().square().mean() for batch in batches))}


def searched(task: rs.Task, folder: Path) -> tuple[str, int]:
    """A store with a small study, and a member of its front."""
    tables = {
        "study": {"name": "s", "trials": 2, "store": str(folder / "s.sqlite")},
        "task": {"factory": "(in memory)"},
        "training": {"epochs": 0},
        "folder": folder,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    return result.store, result.front[-1].number


def exported(task: rs.Task, folder: Path, *formats: str, **options: Any) -> dict[str, dict[str, Any]]:
    store, number = searched(task, folder)
    with rs.Store.open(store) as opened:
        found = {
            format: rs.export_trial(opened, "s", number, folder / format, format, task, **options) for format in formats
        }
        packed = rs.pack_trial(opened, "s", number, folder / "s.rsz", task, **options)
    return {**found, "rsz": dict(packed.manifest)}


def test_a_task_of_several_sizes_makes_its_dimensions_dynamic(tmp_path: Path) -> None:
    task = Given(Mean(), [torch.randn(4, length, 8) for length in (7, 9, 12)])
    manifests = exported(task, tmp_path, "safetensors", "pt2", "onnx")
    for manifest in manifests.values():
        assert manifest["sizes"]["shapes"] == [["batch", "x.1", 8]]
    x = torch.randn(3, 20, 8)
    with torch.no_grad():
        expected = rs.load(tmp_path / "safetensors")(x)
        assert expected.shape == (3, 4)
        program = torch.export.load(tmp_path / "pt2" / "model.pt2").module()
        for other in (rs.load(tmp_path / "s.rsz"), program, FORMATS["onnx"].read(tmp_path / "onnx", {})):
            torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)
    rs.unpack_file(tmp_path / "s.rsz", tmp_path / "unpacked")
    torch.testing.assert_close(rs.load(tmp_path / "unpacked")(x), expected)


def test_none_leaves_the_sizes_of_the_data_fixed(tmp_path: Path) -> None:
    task = Given(Mean(), [torch.randn(4, length, 8) for length in (7, 9)])
    manifests = exported(task, tmp_path, "safetensors", dynamic=["none"])
    assert all(each["sizes"]["shapes"] == [["batch", 7, 8]] for each in manifests.values())
    with pytest.raises(ExportError, match="size 9 in dimension 1; it was exported for size 7"):
        rs.load(tmp_path / "s.rsz")(torch.randn(1, 9, 8))


def test_a_model_that_is_called_with_keywords_is_written(tmp_path: Path) -> None:
    batches = [{"input_ids": torch.randint(50, (4, 7)), "attention_mask": torch.ones(4, 7)} for _ in range(2)]
    task = Given(Masked(), batches)
    exported(task, tmp_path, "safetensors", "pt2")
    with torch.no_grad():
        assert rs.load(tmp_path / "safetensors")(**batches[0]).shape == (4, 7, 5)


def test_a_model_that_draws_is_written_and_says_so(tmp_path: Path) -> None:
    manifests = exported(Given(Samples(), [torch.randn(16, 8)]), tmp_path, "safetensors", "pt2", "onnx")
    assert all(manifest["draws"] for manifest in manifests.values())
    assert not exported(Given(Mean(), [torch.randn(4, 3, 8)]), tmp_path / "other")["rsz"]["draws"]


def test_packed_with_several_sizes_it_takes_them(tmp_path: Path) -> None:
    model, batches = Mean().eval(), [torch.randn(16, length, 8) for length in (6, 9)]
    packed = rs.pack_model(model, batches, example=batches[0][:1])
    packed.write(tmp_path / "several.rsz")
    packed.write(tmp_path / "one.rsz", ["none"])
    x = torch.randn(2, 11, 8)
    torch.testing.assert_close(rs.load(tmp_path / "several.rsz")(x), packed.model(x))
    with pytest.raises(ExportError, match="size 11 in dimension 1"):
        rs.load(tmp_path / "one.rsz")(x)
