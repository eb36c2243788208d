"""From a network's weights alone to a searched, packed and exported model, by one command and without a task file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.story.small import Command, deployed

NETWORKS = """
from collections import OrderedDict
import torch
from torch import nn

def normed():
    torch.manual_seed(0)
    layers = OrderedDict(first=nn.Conv2d(1, 8, 3, padding=1), norm=nn.BatchNorm2d(8), relu=nn.ReLU(),
        second=nn.Conv2d(8, 12, 3, padding=1), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), last=nn.Linear(12, 4))
    model = nn.Sequential(layers).train()
    for _ in range(3):
        model(2 * torch.randn(16, 1, 6, 6) + 1)
    return model.eval(), torch.zeros(1, 1, 6, 6)

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(20, 12), nn.Linear(12, 12), nn.Linear(12, 20)

    def forward(self, input_ids):
        x = self.table(input_ids)
        return self.head(x + torch.relu(self.body(x)))

def language_model():
    torch.manual_seed(0)
    return Tokens().eval()

def regression():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), torch.zeros(1, 6)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("factory", "data", "more", "objective"),
    [
        ("normed", "none", (), "layer_error"),
        ("normed", "gaussian", (), "kl"),
        ("language_model", "none", ("--example", "1x8,int64"), "layer_error"),
        ("language_model", "synthetic", ("--example", "1x8,int64"), "kl"),
    ],
)
def test_one_command_from_weights_to_a_front(
    place: Path, command: Command, factory: str, data: str, more: tuple[str, ...], objective: str
) -> None:
    name = f"nets-{factory}-{data}"
    begin = ("run", f"nets.py:{factory}", "--data", data, *more, "--trials", "3")
    found = command.fine(*begin)
    out, said = found.out, found.err
    assert f"front of {name}" in out
    assert objective in out
    assert f"{objective} is minimized" in said
    assert "no real data to test on" in said
    assert (place / f"{name}.toml").is_file()
    number, whole, packed = deployed(command, name, objective)
    ids = torch.arange(16).view(2, 8) if factory == "language_model" else torch.randn(2, 1, 6, 6)
    assert torch.allclose(whole(ids), packed(ids))
    assert "Nothing to do" in command.fine(*begin).err
    assert "3 finished trials" in command.fine("run", f"{name}.toml", "--trials", 4).err
    if objective == "layer_error":
        assert "no input to train on" in command.refused("confirm", f"{name}.sqlite", name, number)
    assert f"{objective}: " in command.fine("show", f"{name}.sqlite", name, number).out


def test_synthetic_images_in_one_command(place: Path, command: Command) -> None:
    """With fewer steps than the command takes, as a person would write them into the file."""
    (place / "few.toml").write_text(
        '[study]\nname = "few"\n[task]\nfactory = "nets.py:normed"\n[data]\nsource = "synthetic"\nsteps = 3\n'
        'batch_size = 64\n[search]\nobjectives = ["kl", "macs"]\n[training]\nepochs = 1\n'
    )
    said = command.fine("run", "few.toml", "--trials", 3).err
    assert "agreement with the dense model on synthetic inputs" in said
    command.fine("report", "few.sqlite", "few", "-o", "few.html")
    assert "on synthetic inputs" in (place / "few.html").read_text()


def test_the_store_says_where_the_study_file_lies(place: Path, command: Command) -> None:
    (place / "deep").mkdir()
    command.fine("run", "nets.py:regression", "--data", "gaussian", "--trials", "2", "--store", "deep/own.sqlite")
    file = place / "deep" / "nets-regression-gaussian.toml"
    assert 'factory = "../nets.py:regression"' in file.read_text()
    assert 'objectives = ["output_error", "macs"]' in file.read_text()
    assert "Nothing to do" in command.fine("run", file, "--trials", 2).err


def test_another_file_in_its_place_is_left_alone(place: Path, command: Command) -> None:
    (place / "nets-regression-none.toml").write_text("mine")
    assert "is there already" in command.refused("run", "nets.py:regression", "--data", "none")
    assert (place / "nets-regression-none.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nets.py:normed",), "Add --data synthetic"),
        (("nets.py",), "neither a study file"),
        (("few.toml", "--data", "none"), "--data and --example are about a network alone"),
        (("nets.py:language_model", "--data", "none"), "network without an example"),
        (("nets.py:language_model", "--data", "none", "--example", "1x8"), "does not run on the task's example"),
        (("nets.py:regression", "--data", "synthetic"), "no batch norms"),
        (("nets.py:nothing", "--data", "none"), "no function 'nothing'"),
    ],
)
def test_what_cannot_be_run_is_refused_with_a_remedy(
    place: Path, command: Command, words: tuple[str, ...], said: str
) -> None:
    assert said in command.refused("run", *words)
    assert not list(place.glob("*.toml"))
    assert not list(place.glob("*.sqlite"))
