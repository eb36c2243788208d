"""A trial that is left at a rung and gone on with ends bit for bit like one that was never left."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.artifacts import ArtifactStore
from rank_search.coding import from_safetensors
from rank_search.errors import ArtifactError
from rank_search.layers import DirectBases, load_plugin, take_inventory
from rank_search.point import Artifact, Choice, Outcome, Point, State
from rank_search.quantization import reestimate_batchnorm
from rank_search.tasks import Supervised, seeded
from rank_search.training import Checkpoint, TrainingSettings
from rank_search.trials import TrialContext, run_trial
from tests.stripes_task import loader, stripes

MakePoint = Callable[..., Point]
EPOCHS = 3.0
LOSING = 6.0  # a strength of the sparsity penalty at which some components end, and others do not


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8, momentum=0.3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8, 4),
    )


POINT = {"4": Choice("tucker2", {"rank_out": 5, "rank_in": 4}), "10": Choice("svd", {"rank": 2})}
DENSE = {name: Choice() for name in POINT}


class Noisy:
    """Batches without a length, in a new order and with new noise in every pass, by the global generator."""

    def __init__(self, count: int) -> None:
        self.inputs, self.targets = stripes(count, 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in torch.randperm(len(self.targets)).split(30):
            yield self.inputs[part] + 0.1 * torch.randn(len(part), 1, 8, 8), self.targets[part]


@pytest.fixture(scope="module")
def bench() -> Callable[..., TrialContext]:
    with seeded(0):
        network, selection = small_network(), loader(60, 2, 30)
    task = Supervised(network, loader(150, 1, 30, shuffle=True), selection, selection)
    with seeded(0):
        reestimate_batchnorm(task, network)
    layers = take_inventory(network, task.example()).layers
    bases = {name: DirectBases(network.get_submodule(name).weight) for name in layers}
    plugins = {name: load_plugin(name) for name in ("svd", "tucker2")}

    def make(data: Any = None, **training: Any) -> TrialContext:
        given = TrainingSettings.model_validate({"epochs": EPOCHS, "learning_rate": 1e-2, **training})
        chosen = task if data is None else dataclasses.replace(task, training_batches=data)
        return TrialContext(chosen, network, layers, plugins, bases.__getitem__, given)

    return make


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def climb(made: TrialContext, point: Point, budgets: list[float | None], store: ArtifactStore) -> list[Outcome]:
    """Go through the budgets by checkpoints, with torch's generator disturbed between them."""
    outcomes: list[Outcome] = []
    for budget in budgets:
        checkpoint = outcomes[-1].artifacts[0] if outcomes else None
        torch.rand(7)
        outcomes.append(run_trial(made, point, 3, store, budget=budget, checkpoint=checkpoint))
        assert outcomes[-1].state is State.COMPLETE, outcomes[-1].reason
    return outcomes


ways = st.fixed_dictionaries(
    {"optimizer": st.sampled_from(["adamw", "sgd"]), "schedule": st.sampled_from(["cosine", "one-cycle", "constant"])},
    optional={
        "momentum": st.sampled_from([0.0, 0.5]),
        "orthogonality_penalty": st.sampled_from(["dso", "mc", "srip"]),
        "gradient_clip": st.just(math.inf),
        "weight_decay": st.just(0.1),
        "warmup": st.just(0.2),
        "distillation": st.just(0.5),
        "batchnorm_batches": st.just(2),
        "average": st.sampled_from([0.5, 0.99]),
        "weight_decay_on": st.just("product"),
        "orthogonality_decay": st.just(0.4),
    },
)
strengths = st.fixed_dictionaries(
    {}, optional={"orthogonality": st.just(0.3), "entropy": st.just(0.3), "sparsity": st.just(LOSING)}
)
rungs = st.lists(st.integers(1, 17).map(lambda steps: steps * EPOCHS / 18), max_size=3, unique=True).map(sorted)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(budgets=rungs, training=ways, penalties=strengths, factorized=st.booleans(), noisy=st.booleans())
def test_training_resumed_from_a_checkpoint_ends_the_same(
    bench: Callable[..., TrialContext],
    artifacts: ArtifactStore,
    budgets: list[float],
    training: dict[str, Any],
    penalties: dict[str, float],
    factorized: bool,
    noisy: bool,
) -> None:
    made = bench(Noisy(150) if noisy else None, **training)
    point = Point(POINT, penalties) if factorized else Point(DENSE, penalties | {"entropy": 0.2})
    *_, last = climb(made, point, [*budgets, None], artifacts)
    assert last == run_trial(made, point, 3, artifacts)
    assert {artifact.kind for artifact in last.artifacts} == {"model", "coded"}


PENALTIES = [{}, {"entropy": 0.3, "orthogonality": 0.1}, {"sparsity": LOSING}, {"sparsity": LOSING, "entropy": 0.3}]
EVERYTHING = {
    "schedule": "one-cycle",
    "average": 0.9,
    "distillation": 0.5,
    "batchnorm_batches": 3,
    "weight_decay": 0.1,
    "weight_decay_on": "product",
    "orthogonality_decay": 0.3,
}


@pytest.mark.parametrize("penalties", PENALTIES)
def test_training_with_every_feature_resumes_bit_for_bit(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, penalties: dict[str, float]
) -> None:
    made, point = bench(Noisy(150), **EVERYTHING), Point(POINT, penalties)
    *_, last = climb(made, point, [0.2, 0.6, 1.8, None], artifacts)
    whole = run_trial(made, point, 3, artifacts)
    assert last == whole, "files are named by their content: the same weights, bit for bit"
    without = run_trial(bench(Noisy(150), **EVERYTHING | {"average": 0}), point, 3, artifacts)
    assert without.artifacts != whole.artifacts


def test_ranks_that_training_lowers_are_the_same_when_it_resumes(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made, asked = bench(schedule="constant"), Point(POINT, {"sparsity": LOSING})
    *_, last = climb(made, asked, [0.4, 1.6, 2.6, None], artifacts)
    assert last.settled is not None
    assert last == run_trial(made, asked, 3, artifacts)


def test_checkpoint_keeps_the_average_beside_the_weights(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    kept = [
        from_safetensors(artifacts.read(run_trial(made, Point(POINT), 3, artifacts, budget=1.0).artifacts[0]))
        for made in (bench(), bench(average=0.9))
    ]
    name = "10.left"
    assert torch.equal(kept[0][f"model/{name}"], kept[1][f"model/{name}"]), "the trained weights go on, not averaged"
    assert f"average/{name}" not in kept[0]
    assert not torch.equal(kept[1][f"average/{name}"], kept[1][f"model/{name}"])


@pytest.mark.parametrize("penalties", PENALTIES)
def test_rung_results_do_not_depend_on_how_it_was_reached(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, penalties: dict[str, float]
) -> None:
    made, point = bench(), Point(POINT, penalties)
    budgets = [0.2, 1.0, 1.5, 2.7]
    climbed = climb(made, point, [*budgets], artifacts)
    assert [run_trial(made, point, 3, artifacts, budget=budget) for budget in budgets] == climbed
    assert [[artifact.kind for artifact in outcome.artifacts] for outcome in climbed] == [["checkpoint"]] * 4


def test_before_any_training_the_fit_is_measured_and_nothing_is_left_to_go_on_from(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made = bench()
    fitted = run_trial(made, Point(POINT), 3, artifacts, budget=0.0)
    assert (fitted.state, fitted.artifacts) == (State.COMPLETE, ())
    assert fitted.measurements == run_trial(bench(epochs=0.0), Point(POINT), 3).measurements
    assert fitted.measurements != run_trial(made, Point(POINT), 3).measurements


def test_a_rung_is_what_a_training_that_ends_there_would_give(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    point = Point(POINT, {"orthogonality": 0.3})
    made, shorter = bench(schedule="constant"), bench(epochs=1.0, schedule="constant")
    at_rung = run_trial(made, point, 3, artifacts, budget=1.0)
    assert at_rung.measurements == run_trial(shorter, point, 3).measurements


def test_a_rung_under_the_entropy_penalty_is_coded(bench: Callable[..., TrialContext]) -> None:
    """It is not what a shorter training would give: that would settle its steps in its last quarter."""
    made = bench(schedule="constant", entropy_warmup=0.0)
    coded, plain = (run_trial(made, Point(POINT, each), 3, budget=1.0) for each in ({"entropy": 0.3}, {}))
    assert coded.measurements["bits"] < plain.measurements["bits"] / 2


def test_schedule_of_a_rung_is_that_of_the_full_budget(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made = [bench(), bench(epochs=1.5), bench(schedule="constant"), bench(schedule="constant", epochs=1.5)]
    left = [run_trial(each, Point(POINT), 3, artifacts, budget=1.0).artifacts[0] for each in made]
    longer, shorter, *constant = [from_safetensors(artifacts.read(each))["model/10.left"] for each in left]
    assert not torch.equal(longer, shorter)
    assert torch.equal(*constant)


@pytest.mark.parametrize("budget", [3.0, 4.0, None])
def test_budgets_beyond_the_full_one_are_the_full_one(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, budget: float | None
) -> None:
    outcome = run_trial(bench(), Point(POINT), 3, artifacts, budget=budget)
    assert outcome == run_trial(bench(), Point(POINT), 3, artifacts)
    assert [artifact.kind for artifact in outcome.artifacts] == ["model", "coded"]


def test_frozen_layers_stay_frozen_when_a_training_resumes(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made = bench()
    frozen = dataclasses.replace(made, dense=small_network())
    frozen.dense.load_state_dict(made.dense.state_dict())
    frozen.dense.get_submodule("0").requires_grad_(False)
    *_, last = climb(frozen, Point(POINT), [0.5, None], artifacts)
    assert last == run_trial(frozen, Point(POINT), 3, artifacts)
    state = from_safetensors(artifacts.read(last.artifacts[0]))
    assert torch.equal(state["0.weight"], made.dense.get_parameter("0.weight"))


def test_resumed_training_skips_the_batches_already_taken(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    trained: list[Tensor] = []

    def watched(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.requires_grad:
            trained.append(targets)
        return nn.functional.cross_entropy(outputs, targets)

    made = bench()
    made = dataclasses.replace(made, task=dataclasses.replace(made.task, loss_function=watched))
    climb(made, Point(POINT), [0.4, 1.0, 1.8, None], artifacts)
    assert len(trained) == 15
    for number in range(3):
        taken = torch.cat(trained[5 * number : 5 * number + 5])
        assert torch.equal(taken.sort().values, stripes(150, 1)[1].sort().values), "each pass is a whole one"


@pytest.mark.parametrize(("batches", "taken"), [(None, 10), (2, 4)])
def test_resumed_trials_take_statistics_from_the_batches_asked_for(
    bench: Callable[..., TrialContext], batches: int | None, taken: int
) -> None:
    seen: list[int] = []

    class Counting(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            for batch in list.__iter__(self):
                seen.append(len(seen))
                yield batch

    made = bench(Counting(loader(150, 1, 30)), epochs=0, batchnorm_batches=batches)
    run_trial(made, Point(POINT, {"entropy": 0.1}), 3)  # once after factorizing, once after rounding
    assert len(seen) == taken


def test_resumed_training_reads_again_only_the_pass_that_was_interrupted(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    class Counting(list[Any]):
        taken = 0

        def __iter__(self) -> Iterator[Any]:
            for batch in list.__iter__(self):
                Counting.taken += 1
                yield batch

    made = bench(Counting(loader(150, 1, 30)))
    dense = Point(DENSE, {"entropy": 0.2})
    left_at = []
    for budget in (1.0, 1.6):
        outcome = run_trial(made, dense, 3, artifacts, budget=budget)
        Counting.taken = 0
        run_trial(made, dense, 3, artifacts, checkpoint=outcome.artifacts[0])
        left_at.append(Counting.taken)
    statistics = 5
    assert left_at == [10 + statistics, 3 + 7 + statistics]


# ---- what is no trial's fault ----------------------------------------------------------------------------


@pytest.fixture
def left(bench: Callable[..., TrialContext], artifacts: ArtifactStore) -> Artifact:
    """The checkpoint of a trial after one epoch."""
    return run_trial(bench(), Point(POINT), 3, artifacts, budget=1.0).artifacts[0]


def test_a_checkpoint_is_data_that_says_what_it_is(artifacts: ArtifactStore, left: Artifact) -> None:
    tensors = from_safetensors(artifacts.read(left))
    parts = {name.partition("/")[0] for name in tensors}
    assert parts == {"about", "model", "optimizers", "generators", "generators at the pass"}
    assert left.location.endswith(".checkpoint")


def test_damaged_or_missing_checkpoints_are_reported(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, left: Artifact, tmp_path: Path
) -> None:
    file = tmp_path / "artifacts" / left.location
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        file.write_bytes(damaged)
        with pytest.raises(ArtifactError, match="has changed since it was written"):
            run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=left)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"could not be read: No such file.*run the trial again"):
        run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=left)


@pytest.mark.parametrize("data", [b"", b"nonsense", b'{"step": 3}'])
def test_checkpoint_refuses_other_bytes(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, data: bytes
) -> None:
    other = artifacts.write("checkpoint", "a", ".checkpoint", data)
    with pytest.raises(ArtifactError, match="no checkpoint of a trial"):
        run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=other)


def test_checkpoint_refuses_the_file_of_a_model(bench: Callable[..., TrialContext], artifacts: ArtifactStore) -> None:
    model = run_trial(bench(epochs=0.2), Point(POINT), 3, artifacts).artifacts[0]
    with pytest.raises(ArtifactError, match="no checkpoint of a trial"):
        run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=model)


def test_a_checkpoint_of_another_trial_is_refused(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, left: Artifact
) -> None:
    for made, point, rng_seed in (
        (bench(), Point(POINT, {"entropy": 0.1}), 3),
        (bench(), Point(POINT), 4),
        (bench(epochs=9), Point(POINT), 3),
    ):
        with pytest.raises(ArtifactError, match=r"of another point, another rng seed.*Start the trial over"):
            run_trial(made, point, rng_seed, artifacts, checkpoint=left)


def test_a_checkpoint_from_before_there_were_some_keys_is_gone_on_with(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, left: Artifact
) -> None:
    found = Checkpoint.from_bytes(artifacts.read(left))
    keys = dict(found.about["training"])
    for key in ("warmup", "distillation", "batchnorm_batches", "average", "weight_decay_on"):
        del keys[key]
    data = dataclasses.replace(found, about={**found.about, "training": keys}).to_bytes()
    older = artifacts.write("checkpoint", "older", ".checkpoint", data)
    gone_on = run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=older)
    assert gone_on == run_trial(bench(), Point(POINT), 3, artifacts)
    with pytest.raises(ArtifactError, match="other training settings"):
        run_trial(bench(distillation=0.5), Point(POINT), 3, artifacts, checkpoint=older)


def test_training_does_not_go_back_to_a_smaller_budget(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore, left: Artifact
) -> None:
    with pytest.raises(ArtifactError, match=r"left after 1 epochs, and 0\.5 are asked for"):
        run_trial(bench(), Point(POINT), 3, artifacts, checkpoint=left, budget=0.5)


def test_a_checkpoint_needs_its_store(bench: Callable[..., TrialContext], left: Artifact) -> None:
    with pytest.raises(ArtifactError, match="No artifact store was given"):
        run_trial(bench(), Point(POINT), 3, checkpoint=left)


def test_resumed_training_notices_data_that_shrank(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    outcome = run_trial(bench(), Point(POINT), 3, artifacts, budget=1.8)
    with pytest.raises(ArtifactError, match="a pass has fewer"):
        run_trial(bench(loader(60, 1, 30)), Point(POINT), 3, artifacts, checkpoint=outcome.artifacts[0])


def test_divergence_and_failure_leave_no_checkpoint(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    made = bench(optimizer="sgd", learning_rate=1e20, gradient_clip=math.inf)
    diverged = run_trial(made, Point(POINT), 3, artifacts, budget=1.0)
    calls = itertools.count()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls) == 2:
            raise TimeoutError("enough")
        return nn.functional.cross_entropy(outputs, targets)

    failing = dataclasses.replace(bench().task, loss_function=loss)
    failed = run_trial(dataclasses.replace(bench(), task=failing), Point(POINT), 3, artifacts, budget=1.0)
    broken = dataclasses.replace(bench().task, metric=lambda outputs, targets: math.nan)
    measured = run_trial(dataclasses.replace(bench(), task=broken), Point(POINT), 3, artifacts, budget=1.0)
    assert [each.state for each in (diverged, failed, measured)] == [State.DIVERGED, State.FAILED, State.DIVERGED]
    assert [each.artifacts for each in (diverged, failed, measured)] == [(), (), ()]
    assert artifacts.names() == []


def test_a_point_that_is_not_trained_has_nothing_to_go_on_from(
    bench: Callable[..., TrialContext], artifacts: ArtifactStore
) -> None:
    outcome = run_trial(bench(), Point(DENSE), 3, artifacts, budget=1.0)
    assert (outcome.state, outcome.artifacts) == (State.COMPLETE, ())
    assert outcome.measurements == run_trial(bench(), Point(DENSE), 3, artifacts).measurements
