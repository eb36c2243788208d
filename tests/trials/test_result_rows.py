"""A row of results: one training, whose model is cut at smaller costs."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import from_safetensors
from rank_search.layers import DirectBases, Layer, factorize, layer_cost, load_plugin
from rank_search.point import Choice, Cut, Outcome, Point, State
from rank_search.tasks import Supervised
from rank_search.trials import TrialContext, build, measure, run_trial
from rank_search.trials.result_rows import _carried, row_of
from rank_search.trials.settling import Settled
from tests.trials.test_trial import MakePoint, MakeWorkbench, rebuilt

COUNT = 4


def state_of(outcome: Outcome, folder: Path) -> Mapping[str, Tensor]:
    model = next(each for each in outcome.artifacts if each.kind == "model")
    return from_safetensors(ArtifactStore(folder).read(model))


def with_row(made: TrialContext, count: int = COUNT) -> TrialContext:
    return replace(made, row=count)


@pytest.fixture
def trained(workbench: MakeWorkbench, point: MakePoint, tmp_path: Path) -> tuple[TrialContext, Outcome]:
    made = with_row(workbench(epochs=0.5))
    return made, run_trial(made, point(), 3, ArtifactStore(tmp_path))


def test_each_cut_is_measured_and_kept_like_a_trial(trained: tuple[TrialContext, Outcome], tmp_path: Path) -> None:
    made, outcome = trained
    assert len(outcome.row) == COUNT
    for cut in outcome.row:
        assert cut.outcome.state is State.COMPLETE
        model, coded = rebuilt(made, cut.outcome.settled or cut.point, cut.outcome, tmp_path)
        assert measure(made.task, model, len(coded)) == cut.outcome.measurements
        assert cut.outcome.row == ()
        costs = {
            name: vars(layer_cost(made.layers[name], made.plugins[choice.factorization], choice))
            for name, choice in cut.point.layers.items()
            if not choice.is_dense
        }
        assert cut.layer_costs == costs
    assert len({cut.point.key for cut in outcome.row}) == COUNT


@pytest.mark.parametrize("judged", [("macs",), ("params",), ("params", "macs")])
def test_costs_fall_evenly_in_their_logarithms(
    workbench: MakeWorkbench, point: MakePoint, judged: tuple[str, ...]
) -> None:
    made = replace(with_row(workbench(epochs=0)), judged=judged)
    outcome = run_trial(made, point(), 0)
    whole = outcome.measurements
    found = [sum(cut.outcome.measurements[cost] / whole[cost] for cost in judged) / len(judged) for cut in outcome.row]
    least = min(found)
    assert found == sorted(found, reverse=True)
    for place, share in enumerate(found, 1):
        target = max(least, 0.1) ** (place / COUNT)
        assert target * 0.75 < share <= target * (1 + 1e-9) or math.isclose(share, least)


def test_a_cut_has_the_trained_components_as_they_are(trained: tuple[TrialContext, Outcome], tmp_path: Path) -> None:
    _, outcome = trained
    whole = state_of(outcome, tmp_path)
    for cut in outcome.row:
        small = state_of(cut.outcome, tmp_path)
        for name, tensor in small.items():
            if "running" in name or "batches" in name:  # statistics are taken again
                continue
            assert_part_of(tensor, whole[name])


def assert_part_of(part: Tensor, whole: Tensor) -> None:
    """Slices of the whole, in its order: brute force over which ones, mode by mode."""
    for mode in range(part.dim()):
        if part.shape[mode] < whole.shape[mode]:
            places = [
                place
                for place in range(whole.shape[mode])
                if any(contains(whole.select(mode, place), part.select(mode, own)) for own in range(part.shape[mode]))
            ]
            whole = whole.index_select(mode, torch.tensor(places))
    assert torch.equal(part, whole)


def contains(larger: Tensor, smaller: Tensor) -> bool:
    """Whether each number of the one is in the other: enough for random numbers."""
    return bool(torch.isin(smaller, larger).all())


def test_the_trial_itself_is_what_it_is_without_a_row(workbench: MakeWorkbench, point: MakePoint) -> None:
    made = workbench(epochs=0.5)
    alone = run_trial(made, point(entropy=0.1), 3)
    assert alone.row == ()
    together = run_trial(with_row(made), point(entropy=0.1), 3)
    assert together.row != ()
    assert replace(together, row=()) == alone


def test_rounded_models_are_cut_on_their_grids(workbench: MakeWorkbench, point: MakePoint, tmp_path: Path) -> None:
    made = with_row(workbench(epochs=1))
    outcome = run_trial(made, point(entropy=0.3), 3, ArtifactStore(tmp_path))
    bits = [outcome.measurements["bits"], *(cut.outcome.measurements["bits"] for cut in outcome.row)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] < 8 * outcome.measurements["params"], "rounded, not floats"
    whole = state_of(outcome, tmp_path)
    for cut in outcome.row:
        assert cut.point.penalties == point(entropy=0.3).penalties
        for name, tensor in state_of(cut.outcome, tmp_path).items():
            if "running" not in name and "batches" not in name:
                assert bool(torch.isin(tensor, whole[name]).all())


def test_a_resumed_trial_has_the_same_row(workbench: MakeWorkbench, point: MakePoint, tmp_path: Path) -> None:
    made, store = with_row(workbench(epochs=1.5, ordered=0.5)), ArtifactStore(tmp_path)
    first = run_trial(made, point(), 3, store, budget=0.5)
    assert first.row == (), "a row is of the full budget"
    resumed = run_trial(made, point(), 3, store, checkpoint=first.artifacts[0])
    assert resumed.row != ()
    assert resumed == run_trial(made, point(), 3, store)


def test_cuts_that_fail_or_diverge_leave_the_others_and_the_trial(
    workbench: MakeWorkbench, task: Supervised, point: MakePoint, caplog: pytest.LogCaptureFixture
) -> None:
    made, asked = workbench(epochs=0), list[int]()

    def metric(outputs: Tensor, targets: Tensor) -> float:
        asked.append(len(targets))
        if len(asked) == 2:
            raise ValueError("no such labels")
        return math.nan if len(asked) == 3 else task.metric(outputs, targets)

    whole = run_trial(with_row(made), point(), 0)
    with caplog.at_level(logging.WARNING, "rank_search"):
        outcome = run_trial(with_row(replace(made, task=replace(task, metric=metric))), point(), 0)
    assert len(asked) == 1 + COUNT
    assert replace(outcome, row=()) == replace(whole, row=())
    assert [cut.point for cut in outcome.row] == [cut.point for cut in whole.row[2:]]
    assert all(cut.outcome.state is State.COMPLETE for cut in outcome.row)
    assert "no such labels" in caplog.text


def test_a_dense_model_has_no_row(workbench: MakeWorkbench, dense_point: MakePoint) -> None:
    assert run_trial(with_row(workbench(epochs=0.5)), dense_point(), 0).row == ()
    assert run_trial(with_row(workbench(epochs=0.2)), dense_point(entropy=0.1), 0).row == ()


# ---- which components, and how many of each layer ---------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5, bias=False), nn.Linear(5, 7, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))  # type: ignore[no-any-return]


def two_layers(row: int = 3) -> tuple[TrialContext, Settled]:
    """Two layers of full rank with moments of their inputs, trained in that their factors are random."""
    torch.manual_seed(3)
    network = Two()
    layers = {"one": Layer("one", "linear", (5, 6), bias=False), "two": Layer("two", "linear", (7, 5), bias=False)}
    moments = {name: (root := torch.randn(9, layer.shape[1])).T @ root for name, layer in layers.items()}
    bases = {name: DirectBases(network.get_parameter(f"{name}.weight"), moments[name]) for name in layers}
    plugins = {"svd": load_plugin("svd")}
    point = Point({name: Choice("svd", {"rank": 5}) for name in layers})
    model = factorize(network, point, layers, plugins, bases.__getitem__)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    context = TrialContext(None, network, layers, plugins, bases.__getitem__, judged=("params",), row=row)  # type: ignore[arg-type]
    return context, Settled(point, model.state_dict())


def errors_of(context: TrialContext, state: Mapping[str, Tensor], name: str) -> dict[tuple[int, ...], float]:
    """The relative output error of every set of components of a layer."""
    left, right = state[f"{name}.left"], state[f"{name}.right"]
    moment = context.bases(name).moment
    assert moment is not None

    def size(weight: Tensor) -> float:
        return float(torch.trace(weight.double() @ moment.double() @ weight.double().T))

    whole = left @ right
    found = {}
    for count in range(1, 6):
        for chosen in itertools.combinations(range(5), count):
            places = list(chosen)
            found[chosen] = size(whole - left[:, places] @ right[places]) / size(whole)
    return found


def test_a_cut_is_the_exact_allocation() -> None:
    context, trained = two_layers()
    sizes = {"one": 11, "two": 12}  # numbers in a component
    total = 5 * 11 + 5 * 12
    found = list(row_of(context, trained, {"params": total}))
    assert len(found) == 3
    least = (11 + 12) / total
    errors, kept = {}, {}
    for name in sizes:
        norms = trained.state[f"{name}.left"].norm(dim=0) * trained.state[f"{name}.right"].norm(dim=1)
        order = norms.argsort(descending=True).tolist()
        every = errors_of(context, trained.state, name)
        for rank in range(1, 6):
            those = [tuple(range(rank)), tuple(sorted(order[:rank]))]
            kept[name, rank] = min(those, key=every.__getitem__)
            errors[name, rank] = every[kept[name, rank]]
    for place, cut in enumerate(found, 1):
        limit = total * least ** (place / 3) + 1e-6
        possible = [
            (errors["one", one] + errors["two", two], one, two)
            for one, two in itertools.product(range(1, 6), repeat=2)
            if 11 * one + 12 * two <= limit
        ]
        _, one, two = min(possible)
        assert cut.point.layers == {"one": Choice("svd", {"rank": one}), "two": Choice("svd", {"rank": two})}
        for name, rank in (("one", one), ("two", two)):
            places = list(kept[name, rank])
            assert torch.equal(cut.state[f"{name}.left"], trained.state[f"{name}.left"][:, places])
            assert torch.equal(cut.state[f"{name}.right"], trained.state[f"{name}.right"][places])


def test_components_that_carry_the_most_stay_wherever_they_are() -> None:
    context, trained = two_layers(row=1)
    state = {name: tensor.clone() for name, tensor in trained.state.items()}
    for name in ("one", "two"):
        state[f"{name}.left"][:, :3] *= 1e-3
    (cut,) = row_of(context, replace(trained, state=state), {"params": 115})
    assert all(int(choice.values["rank"]) == 1 for choice in cut.point.layers.values())
    for name in ("one", "two"):
        assert float(cut.state[f"{name}.left"].abs().max()) > 0.1


def test_components_are_weighed_where_the_factors_are() -> None:
    """The device without numbers stands for a GPU: whatever is not on it does not go with it."""
    with torch.device("meta"):
        form = load_plugin("tucker2")(Layer("", "conv2d", (4, 6, 3, 3)), rank_out=3, rank_in=2)
    assert _carried(form, "rank_out").device.type == "meta"
    assert _carried(form, "rank_in").shape == (2,)


def test_values_are_multiples_of_what_the_search_rounds_to(workbench: MakeWorkbench, point: MakePoint) -> None:
    made = replace(with_row(workbench(epochs=0)), round_to=2)
    even = {
        name: choice
        if choice.is_dense
        else Choice(choice.factorization, {axis: 2 * (int(value) // 2) for axis, value in choice.values.items()})
        for name, choice in point().layers.items()
    }
    row: tuple[Cut, ...] = run_trial(made, Point(even), 0).row
    assert row
    values = [value for cut in row for choice in cut.point.layers.values() for value in choice.values.values()]
    assert all(value % 2 == 0 for value in values)


def test_what_cannot_be_built_is_never_a_cut(trained: tuple[TrialContext, Outcome], tmp_path: Path) -> None:
    made, outcome = trained
    for cut in outcome.row:
        point = cut.outcome.settled or cut.point
        build(made.dense, point, made.layers, made.plugins, dict(state_of(cut.outcome, tmp_path)))
        for name, choice in cut.point.layers.items():
            if not choice.is_dense:
                axes = made.plugins[choice.factorization].axes(made.layers[name])
                assert all(axis.low <= choice.values[axis.name] <= axis.high for axis in axes)
