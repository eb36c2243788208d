"""`export --format transformers`: folders that transformers opens and generates with, without this package."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export import pretrained as exports
from rank_search.layers import Factorization
from tests.pretrained_models import modules_in, pretrained, token_ids
from tests.story.pretrained_folders import opened
from tests.story.small import Command
from tests.story.test_transformers_models import Near, searched

OPENS = {
    "gpt2": "AutoModelForCausalLM",
    "llama": "AutoModelForCausalLM",
    "mixtral": "AutoModelForCausalLM",
    "t5": "AutoModelForSeq2SeqLM",
    "whisper": "AutoModelForSpeechSeq2Seq",
    "bert": "AutoModelForMaskedLM",
}


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules_in(tmp_path / "modules", monkeypatch)


class Searched:
    """A model that was cut, and the folder that transformers opens."""

    def __init__(self, name: str, folder: Path) -> None:
        model, example = pretrained(name)
        self.task = Near(model, example)
        self.store, self.number = searched(self.task, folder)
        self.small = rs.build_model(self.store, "s", self.number, self.task)
        self.path = folder / "small"
        self.manifest = self.export(self.path)

    def export(self, folder: Path, format: str = "transformers") -> dict[str, Any]:
        return rs.export_trial(self.store, "s", self.number, folder, format, task=self.task)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Searched]]:
    """The searched model of a name, made once."""
    known: dict[str, Searched] = {}

    def get(name: str) -> Searched:
        if name not in known:
            known[name] = Searched(name, tmp_path_factory.mktemp(name))
        return known[name]

    yield get
    for each in known.values():
        each.store.close()


@pytest.fixture(params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, made: Callable[[str], Searched]) -> Searched:
    return made(request.param)


@pytest.mark.parametrize("name", list(OPENS))
@torch.no_grad()
def test_what_transformers_opens_gives_the_models_outputs(name: str, made: Callable[[str], Searched]) -> None:
    found = made(name)
    assert {"config.json", "model.safetensors", "modeling_low_rank.py", "model.coded"} <= {*found.manifest["files"]}
    back, small, dense = opened(found.path, OPENS[name]), found.small, found.task.network
    assert not back.training
    assert sum(map(torch.numel, back.parameters())) == sum(map(torch.numel, small.parameters()))
    for inputs in found.task.selection():
        torch.testing.assert_close(back(**inputs).logits, small(**inputs).logits, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(back(**inputs).logits, dense(**inputs).logits, atol=1e-4)
    ranks = {layer: each.values["rank"] for layer, each in small.named_modules() if isinstance(each, Factorization)}
    assert len(ranks) > 0
    assert json.loads((found.path / "config.json").read_text())["low_rank"] == ranks


def next_tokens(model: nn.Module, ids: Tensor, count: int) -> Tensor:
    """The most likely token after all so far, again and again, of each sequence by itself."""
    rows = []
    for row in ids:
        for _ in range(count):
            row = torch.cat([row, model(row[None], use_cache=False).logits[0, -1].argmax()[None]])
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize(("examples", "length"), [(1, 1), (1, 5), (3, 11)])
@torch.no_grad()
def test_it_generates_with_its_cache_at_any_batch_and_length(folder: Searched, examples: int, length: int) -> None:
    back, ids = opened(folder.path), token_ids(examples, length, seed=length)
    wanted, seen = next_tokens(folder.small, ids, 6), list[int]()
    layer = next(each for each in back.modules() if type(each).__name__ == "LowRank")
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    given = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 6, "eos_token_id": None}
    assert torch.equal(back.generate(ids, use_cache=True, **given), wanted)
    assert torch.equal(back.generate(ids, use_cache=False, **given), wanted)
    assert seen == [length, 1, 1, 1, 1, 1, *range(length, length + 6)]


def test_the_folder_opens_where_this_package_is_not(made: Callable[[str], Searched], tmp_path: Path) -> None:
    folder, ids = made("llama"), token_ids(2, 7)
    torch.save(ids, tmp_path / "ids.pt")
    code = textwrap.dedent("""
        import sys, torch, transformers
        for name in ("rank_search", "rank_search_plugins"):
            sys.modules[name] = None
        folder, given, out = sys.argv[1:]
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
        with torch.no_grad():
            torch.save(model(torch.load(given)).logits, out)
    """)
    paths = [str(each) for each in (folder.path, tmp_path / "ids.pt", tmp_path / "out.pt")]
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *paths], check=True, cwd=tmp_path, env=environment, capture_output=True)
    with torch.no_grad():
        wanted = folder.small(ids).logits
    torch.testing.assert_close(torch.load(tmp_path / "out.pt"), wanted, rtol=1e-5, atol=1e-6)


def test_without_its_module_it_does_not_open(folder: Searched) -> None:
    """It must not open with random numbers for weights."""
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(folder.path, trust_remote_code=False)


@torch.no_grad()
def test_it_can_be_saved_again(folder: Searched, tmp_path: Path) -> None:
    opened(folder.path).save_pretrained(tmp_path / "again")
    ids = token_ids(2, 7)
    torch.testing.assert_close(opened(tmp_path / "again")(ids).logits, folder.small(ids).logits, rtol=1e-5, atol=1e-6)


def test_the_command_writes_it(tmp_path: Path, command: Command) -> None:
    (tmp_path / "task.py").write_text(
        "from tests.pretrained_models import pretrained\n"
        "from tests.story.test_transformers_models import Near\n"
        "def task():\n    return Near(*pretrained('llama'))\n"
    )
    (tmp_path / "s.toml").write_text(
        '[study]\nname = "s"\ntrials = 3\n[task]\nfactory = "task.py:task"\n'
        '[search]\nobjectives = ["distance", "params"]\n[training]\nepochs = 0\n'
        '[layers]\ninclude = ["model.layers.*"]\nfactorizations = ["svd"]\n'
    )
    result = rs.run_study(rs.load_study(tmp_path / "s.toml"))
    number, out = result.front[-1].number, tmp_path / "small"
    said = command.fine("export", result.store, "s", number, "-o", out, "--format", "transformers")
    assert "modeling_low_rank.py" in said.out
    assert opened(out).config.model_type == "low_rank_llama"
    allocated = command(
        "allocate", str(tmp_path / "s.toml"), "--params", "0.8", "-o", str(tmp_path / "a"), "--format", "transformers"
    )
    assert "its outputs verified" in allocated.out
    assert opened(tmp_path / "a").config.low_rank


# ---- what is refused -------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


class OwnLlama(transformers.LlamaForCausalLM):
    pass


def own() -> tuple[nn.Module, Any]:
    model, example = pretrained("llama")
    made = OwnLlama(model.config)
    made.load_state_dict(model.state_dict())
    return made.eval(), example


def wrapped() -> tuple[nn.Module, Any]:
    model, example = pretrained("llama")
    return Wrapped(model), example


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (wrapped, r"The model is a Wrapped; --format transformers writes models of transformers' own classes"),
        (own, "OwnLlama is no class of transformers itself"),
    ],
)
def test_what_it_cannot_write_is_refused(
    make: Callable[[], tuple[nn.Module, Any]], complaint: str, tmp_path: Path
) -> None:
    model, example = make()
    task = Near(model, example)
    store, number = searched(task, tmp_path, every_kind=True)
    with store, pytest.raises(ExportError, match=complaint):
        rs.export_trial(store, "s", number, tmp_path / "small", "transformers", task=task)
    assert sorted(path.name for path in tmp_path.iterdir() if "small" in path.name) == []


def test_what_gives_other_outputs_is_not_there(
    made: Callable[[str], Searched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(folder: Path, name: str) -> nn.Module:
        model = right(folder, name)
        with torch.no_grad():
            model.get_parameter("model.norm.weight").mul_(1.1)
        return model

    right = exports.opened
    monkeypatch.setattr(exports, "opened", wrong)
    with pytest.raises(ExportError, match="differ from the model's by up to"):
        made("llama").export(tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_there_is_a_list_of_formats(made: Callable[[str], Searched], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="did you mean 'transformers'"):
        made("llama").export(tmp_path / "small", "transformer")
