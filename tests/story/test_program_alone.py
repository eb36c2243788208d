"""From a file of torch.export.save to a searched, packed and exported model, by one command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import rank_search as rs
from tests.program_files import (
    ANY_BATCH,
    Tokens,
    decomposed,
    exported,
    normed,
    parts_of,
    saved,
    saved_that_makes,
    written,
)
from tests.story.small import Command, deployed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    program = exported(normed(), torch.randn(2, 1, 6, 6), shapes=ANY_BATCH)
    saved(program, folder / "net.pt2")
    saved(decomposed(program), folder / "plain.pt2")
    saved(exported(normed(), torch.randn(1, 1, 6, 6)), folder / "one.pt2")
    saved(exported(normed(), torch.randn(4, 1, 6, 6)), folder / "four.pt2")
    return folder


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for file in files.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("stem", "data", "objective"),
    [
        ("net", "none", "layer_error"),
        ("plain", "none", "layer_error"),
        ("one", "none", "layer_error"),
        ("net", "analytic", "layer_error"),
        ("net", "gaussian", "kl"),
    ],
)
def test_one_command_from_a_file_to_a_front(
    place: Path, command: Command, stem: str, data: str, objective: str
) -> None:
    begin = ("run", f"{stem}.pt2", "--data", data, "--trials", 3)
    name = f"{stem}-{data}"
    assert f"front of {name}" in command.fine(*begin).out
    assert f'factory = "{stem}.pt2"' in (place / f"{name}.toml").read_text()
    _, exported_model, packed_model = deployed(command, name, objective)
    x = torch.randn(1 if stem == "one" else 3, 1, 6, 6)
    with torch.no_grad():
        whole, packed, dense = exported_model(x), packed_model(x), normed()(x)
    assert torch.allclose(whole, packed)
    assert 0 < float((whole - dense).square().sum() / dense.square().sum()) < 1
    assert "Nothing to do" in command.fine(*begin).err


def test_a_language_model_looks_at_what_it_writes(place: Path, command: Command) -> None:
    torch.manual_seed(0)
    any_size = ({0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},)
    program = exported(Tokens().eval(), torch.zeros(2, 8, dtype=torch.int64), shapes=any_size)
    saved(program, place / "words.pt2")
    said = " ".join(command.fine("run", "words.pt2", "--data", "synthetic", "--trials", 3).out.split())
    assert "sequences sampled from the model itself" in said
    _, whole, packed = deployed(command, "words-synthetic", "kl")
    ids = torch.randint(0, 20, (3, 5))
    assert torch.allclose(whole(ids), packed(ids))


def test_analytic_moments_pass_through_its_calls(place: Path, command: Command) -> None:
    """As they pass through the network that it was exported from."""
    (place / "same.py").write_text("from tests.program_files import normed\n")
    command.fine("run", "net.pt2", "--data", "analytic", "--trials", 3)
    command.fine("run", "same.py:normed", "--data", "analytic", "--trials", 3, "--example", "1x1x6x6")
    with rs.Store.open("net-analytic.sqlite") as one, rs.Store.open("same-normed-analytic.sqlite") as other:
        found = [store.front(store.study(store.studies()[0].name)) for store in (one, other)]
    first, second = ([row.measurements["layer_error"] for row in front] for front in found)
    assert first == pytest.approx(second, rel=1e-5)


def test_another_file_in_its_place_is_noticed(place: Path, command: Command) -> None:
    command.fine("run", "net.pt2", "--data", "none", "--trials", 2)
    torch.manual_seed(7)
    other = normed()
    torch.nn.init.normal_(other.last.weight)
    saved(exported(other, torch.randn(2, 1, 6, 6), shapes=ANY_BATCH), place / "net.pt2")
    answer = command("run", "net-none.toml", "--trials", 3)
    assert answer.code == 2
    assert "was made from something else: code net.pt2" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("net.pt2",), "Add --data synthetic"),
        (("net.pth", "--data", "none"), "a file that PyTorch unpickles"),
        (("nowhere.pt2", "--data", "none"), "There is no file"),
        (("old.pt2", "--data", "none"), "is a pickle, which may run any code"),
        (("four.pt2", "--data", "none"), "was exported for batches of 4 alone"),
        (("one.pt2", "--data", "none", "--example", "1x1x9x9"), "it was exported for size 6 there"),
        (("one.pt2", "--data", "gaussian"), "takes batches of any size. Export it for any batch"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_remedy(
    place: Path, command: Command, words: tuple[str, ...], said: str
) -> None:
    hostile = {**parts_of(place / "net.pt2"), "data/weights/model.pt": saved_that_makes(place / "made")}
    written(place / "old.pt2", hostile)
    assert said in command.refused("run", *words)
    assert not list(place.glob("*.toml"))
    assert not list(place.glob("*.sqlite"))
    assert not (place / "made").exists()


def test_a_program_is_no_task(place: Path, command: Command) -> None:
    (place / "own.toml").write_text('[study]\nname = "own"\n[task]\nfactory = "net.pt2"\n')
    assert "a network alone, with no data" in command.refused("run", "own.toml")
