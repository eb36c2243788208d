"""Moments that are made in several passes and kept in files: the same numbers as those of one pass in memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rank_search as rs
from rank_search.layers import Layer
from rank_search.priors import KeptTensors
from rank_search.run import prepare, run_study
from rank_search.run.moment_passes import MOST_BATCHES, MomentPasses, calibration_batches
from rank_search.run.preparation import Prepared
from rank_search.store import Store
from tests.story.small import Small, write_study


def small(folder: Path, **priors: Any) -> Small:
    layers = {"exclude": ["first"], "factorizations": ["svd", "tucker2"]}
    return write_study(folder, priors=priors, layers=layers, search={"constraints": []})


def prepared(folder: Path, **priors: Any) -> Prepared:
    return prepare(rs.load_study(small(folder, **priors).file))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=30), st.integers(1, 60_000))
def test_consecutive_layers_share_a_pass_as_long_as_there_is_room(sizes: list[tuple[int, int]], bound: int) -> None:
    layers = {f"{place}": Layer(f"{place}", "linear", size) for place, size in enumerate(sizes)}
    passes = MomentPasses.of(layers, bound, with_gradients=True)
    takes = {name: 12 * (layer.in_features**2 + layer.out_features**2) for name, layer in layers.items()}
    assert [name for part in passes.parts for name in part] == list(layers)
    sums = [sum(takes[name] for name in part) for part in passes.parts]
    assert all(total <= bound or len(part) == 1 for total, part in zip(sums, passes.parts, strict=True))
    for before, after in zip(passes.parts, passes.parts[1:], strict=False):
        assert sum(takes[name] for name in before) + takes[next(iter(after))] > bound
    assert (passes.largest, passes.total) == (max(sums), sum(sums))


@pytest.mark.parametrize("asked", [{}, {"metric": "loss"}, {"metric": "loss", "targets": "sampled"}])
def test_passes_and_files_change_no_number(tmp_path: Path, asked: dict[str, str]) -> None:
    plain = prepared(tmp_path / "plain", **asked)
    apart = prepared(tmp_path / "apart", memory="0.01 MB", **asked)
    assert not isinstance(plain.moments.inputs, KeptTensors)
    assert isinstance(apart.moments.inputs, KeptTensors)
    for one, other in (
        (plain.moments.inputs, apart.moments.inputs),
        (plain.moments.gradients, apart.moments.gradients),
    ):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert plain.options is not None
    assert apart.options is not None
    assert list(plain.options) == list(apart.options)
    assert [each.point for each in plain.seeds] == [each.point for each in apart.seeds]
    chosen = {name: options[len(options) // 2].choices for name, options in plain.options.of.items()}
    choices = {layer: choice for each in chosen.values() for layer, choice in each.items()}
    fitted, again = (rs.factorize(each.problem.model, choices, each.options) for each in (plain, apart) if each.options)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in fitted.state_dict().items())


def test_sampled_targets_are_another_metric(tmp_path: Path) -> None:
    labels, sampled = (prepared(tmp_path / each, metric="loss", targets=each) for each in ("labels", "sampled"))
    assert all(torch.equal(sampled.moments.inputs[name], each) for name, each in labels.moments.inputs.items())
    gradients = labels.moments.gradients
    assert sampled.moments.gradients.keys() == gradients.keys()
    assert not any(torch.equal(sampled.moments.gradients[name], each) for name, each in gradients.items())
    assert sampled.options is not None
    assert labels.options is not None
    assert [each.error for each in sampled.options] != [each.error for each in labels.options]


def test_trials_in_workers_are_those_of_a_search_in_memory(tmp_path: Path) -> None:
    def rows(folder: Path, **priors: Any) -> list[Any]:
        study = rs.load_study(small(folder, **priors).file)
        result = run_study(study, trials=5, workers=1 if not priors else 2)
        with Store.open(result.store) as store:
            found = sorted(store.trials(result.study), key=lambda row: row.point.key)
            return [(row.point, {key: row.measurements[key] for key in ("error", "macs")}) for row in found]

    assert rows(tmp_path / "apart", memory="0.01 MB") == rows(tmp_path / "plain")


def test_the_plan_is_said_beforehand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="rank_search.steps"):
        prepared(tmp_path / "plain")
        assert "their moments take 1 MB, in one pass over 2 batches" in caplog.text
        caplog.clear()
        passes = prepared(tmp_path / "apart", memory="0.01 MB")
    layers = len(passes.problem.inventory.layers)
    assert f"which the largest layer breaks), so they are made in {layers} passes over 2 batches" in caplog.text


def test_moments_that_are_gone_are_missed_in_words(tmp_path: Path) -> None:
    found = prepared(tmp_path, memory="0.01 MB")
    for file in (tmp_path / "spectra").glob("tensor-1-*"):
        file.unlink()
    with pytest.raises(rs.RankSearchError, match=r"What was seen of layer .* is no longer there"):
        dict(found.moments.inputs)


def test_the_memory_of_a_study_is_no_change_to_it(tmp_path: Path) -> None:
    files = small(tmp_path)
    run_study(rs.load_study(files.file), trials=2)
    again = run_study(rs.load_study(small(tmp_path, memory="0.01 MB").file), trials=3)
    assert again.added == 1


@pytest.mark.parametrize("memory", ["4", "4 GiB", "lots", "-1 GB"])
def test_an_amount_of_memory_has_a_unit(tmp_path: Path, memory: str) -> None:
    with pytest.raises(rs.RankSearchError, match="is no amount of memory; write it as 512 MB"):
        rs.load_study(small(tmp_path, memory=memory).file)


def test_the_data_says_how_many_batches_the_widest_layer_takes(tmp_path: Path) -> None:
    found = prepared(tmp_path, calibration="auto")
    layers = found.problem.inventory.layers
    batch = next(iter(found.problem.task.training()))[0]
    positions = {
        name: len(layer.columns(torch.zeros(len(batch), *layer.inputs[0][1:]), 8192)) for name, layer in layers.items()
    }
    wanted = max(
        -(-4 * layer.in_features * layer.kernel[0] * layer.kernel[1] // positions[name])
        for name, layer in layers.items()
    )
    assert calibration_batches(found.problem) == min(MOST_BATCHES, max(2, wanted))
    assert found.moments.inputs.keys() == layers.keys()
