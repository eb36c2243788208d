"""`export --format transformers` of models whose embeddings, and what their weights are tied to, are of low rank."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from rank_search.layers import DirectBases, factorize, load_plugin, take_inventory, weight_of
from rank_search.point import Choice, Point
from tests.pretrained_models import Example, modules_in, of_causal, pretrained, token_ids
from tests.story.pretrained_folders import GIVEN, First, of_each, once_each, opened, write, write_searched
from tests.story.test_pretrained_exports import OPENS
from tests.story.test_transformers_models import Near

PADDING = 0


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules_in(tmp_path / "modules", monkeypatch)


def small_llama(**changed: Any) -> tuple[nn.Module, Example]:
    torch.manual_seed(0)
    config = copy.deepcopy(pretrained("llama")[0].config)
    config.update(changed)  # type: ignore[union-attr,operator]
    return of_causal(transformers.LlamaForCausalLM(config).eval())


def tied_llama() -> tuple[nn.Module, Example]:
    return small_llama(tie_word_embeddings=True)


def sharing_llama() -> tuple[nn.Module, Example]:
    """Two linear layers have one weight, which transformers knows nothing of, and a bias each."""
    model, example = small_llama(mlp_bias=True)
    one, two = (model.get_submodule(f"model.layers.{number}.mlp.up_proj") for number in (0, 1))
    two.weight = one.weight
    for number, each in enumerate((one, two)):
        nn.init.normal_(each.get_parameter("bias"), mean=number)
    return model, example


def t5_without_head() -> tuple[nn.Module, Example]:
    """Three embeddings have one weight, and none of them is tied to a head."""
    model, example = pretrained("t5")
    made = transformers.T5Model(model.config).eval()
    return made, example


TIED = {"lm_head": 5}
RELATIVE = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias"
CASES: Mapping[str, tuple[Callable[[], tuple[nn.Module, Example]], dict[str, int], list[str]]] = {
    "gpt2": (
        lambda: pretrained("gpt2"),
        TIED | {"transformer.wpe": 4, "transformer.h.0.mlp.c_fc": 3},
        ["transformer.wte"],
    ),
    "t5": (lambda: pretrained("t5"), TIED | {RELATIVE: 1}, ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]),
    "tied-llama": (tied_llama, TIED, ["model.embed_tokens"]),
    "llama": (lambda: pretrained("llama"), {"model.embed_tokens": 4}, []),
    "sharing-llama": (sharing_llama, {"model.layers.0.mlp.up_proj": 6}, ["model.layers.1.mlp.up_proj"]),
    "t5-without-head": (t5_without_head, {"encoder.embed_tokens": 5}, ["shared", "decoder.embed_tokens"]),
}


def cut(model: nn.Module, example: Example, ranks: Mapping[str, int]) -> nn.Module:
    layers = take_inventory(model, example).layers
    point = Point({name: Choice("svd", {"rank": rank}) for name, rank in ranks.items()})
    plugins = {"svd": load_plugin("svd")}
    return factorize(model, point, layers, plugins, lambda name: DirectBases(weight_of(model, name)))


class Written:
    """A model that was cut, and the folder that transformers opens."""

    def __init__(self, case: str, folder: Path) -> None:
        make, self.ranks, self.ties = CASES[case]
        self.dense, self.example = make()
        self.small, self.path = cut(self.dense, self.example, self.ranks), folder / "small"
        write(self.small, First(self.dense, self.example), self.path)
        self.auto = OPENS.get(case.split("-")[-1], "AutoModel")

    def opened(self, path: Path | None = None) -> Any:
        return opened(path or self.path, self.auto)

    def inputs(self) -> list[dict[str, Any]]:
        """Batches that have padding in them."""
        return [
            {
                name: torch.cat([token_ids(3, 6, seed=seed), torch.full((3, 1), PADDING)], 1)
                if isinstance(each, Tensor)
                else each
                for name, each in self.example.items()
            }
            for seed in (1, 2)
        ]


made = once_each(Written)
written = of_each(CASES)


def params(model: nn.Module) -> int:
    return sum(map(torch.numel, model.parameters()))


@torch.no_grad()
def test_what_transformers_opens_gives_the_models_outputs(written: Written) -> None:
    back = written.opened()
    for inputs in written.inputs():
        found, wanted, dense = (model(**inputs)[0] for model in (back, written.small, written.dense))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found, dense, atol=1e-4)


def test_factors_are_kept_once(written: Written) -> None:
    back, (layer, *_) = written.opened(), written.ranks
    assert params(back) == params(written.small) < params(written.dense)
    kept = load_file(written.path / "model.safetensors")
    assert {*kept} == {*written.small.state_dict()}
    factors = {f"{name}.{side}" for name in written.ranks for side in ("left", "right")}
    assert {name for name in kept if name.endswith((".left", ".right"))} == factors
    assert json.loads((written.path / "config.json").read_text())["low_rank_ties"] == dict.fromkeys(written.ties, layer)


@torch.no_grad()
def test_nothing_is_tied_anew_and_it_can_be_saved_again(written: Written, tmp_path: Path) -> None:
    back, (inputs, _) = written.opened(), written.inputs()
    back.tie_weights()
    for name in (*written.ranks, *written.ties):
        assert "weight" not in dict(back.get_submodule(name).named_parameters())
    back.save_pretrained(tmp_path / "again")
    again = written.opened(tmp_path / "again")
    assert params(again) == params(written.small)
    for model in (back, again, copy.deepcopy(again)):
        torch.testing.assert_close(model(**inputs)[0], written.small(**inputs)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["gpt2", "t5", "tied-llama", "llama"])
@torch.no_grad()
def test_it_generates_with_its_cache_as_without(case: str, made: Callable[[str], Written]) -> None:
    written = made(case)
    back, ids = written.opened(), token_ids(2, 5)
    found = [back.generate(ids, use_cache=cached, **GIVEN) for cached in (True, False)]
    assert torch.equal(*found)
    assert torch.equal(found[0], written.small.generate(ids, use_cache=False, **GIVEN))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("case", "table", "head"),
    [("gpt2", "transformer.wte", "lm_head"), ("t5", "shared", "lm_head"), ("llama", "model.embed_tokens", "lm_head")],
)
@torch.no_grad()
def test_it_says_where_its_embeddings_are(case: str, table: str, head: str, made: Callable[[str], Written]) -> None:
    written = made(case)
    back, ids = written.opened(), token_ids(2, 5)
    assert back.get_input_embeddings() is back.get_submodule(table)
    assert back.get_output_embeddings() is back.get_submodule(head)
    wanted = written.small.get_submodule(table)(ids)
    torch.testing.assert_close(back.get_input_embeddings()(ids), wanted, rtol=1e-5, atol=1e-6)
    assert back.get_input_embeddings().weight.shape == written.dense.get_submodule(table).weight.shape


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_trained_as_the_model(tied: bool, tmp_path: Path) -> None:
    """Nothing goes through the padding: its row of zeros stays."""
    model, example = small_llama(tie_word_embeddings=tied)
    name = "lm_head" if tied else "model.embed_tokens"
    small = cut(model, example, {name: 4})
    write(small, Near(model, example), tmp_path / "small")
    back, ids = opened(tmp_path / "small").train(), torch.tensor([[5, 7, PADDING, 5, PADDING]])
    table = "model.embed_tokens"
    for each in (back, small.train()):
        (each.get_submodule(table)(ids) * torch.arange(16)).sum().backward()
    for side in ("left", "right"):
        found, wanted = (each.get_parameter(f"{name}.{side}").grad for each in (back, small))
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    ids_of = back.get_parameter("lm_head.left").grad if tied else back.get_parameter(f"{name}.right").grad.T
    assert {int(each) for each in ids_of.abs().sum(1).nonzero()} == {5, 7}


@pytest.mark.parametrize("name", ["gpt2", "t5"])
@torch.no_grad()
def test_a_search_of_the_head_leaves_as_a_folder(name: str, tmp_path: Path) -> None:
    model, example = pretrained(name)
    task = Near(model, example)
    small = write_searched(task, tmp_path, layers={"include": ["lm_head", *CASES[name][2]]})
    back = opened(tmp_path / "small", OPENS[name])
    assert {*back.config.low_rank} == {"lm_head"}
    for inputs in task.selection():
        torch.testing.assert_close(back(**inputs).logits, small(**inputs).logits, rtol=1e-5, atol=1e-6)
