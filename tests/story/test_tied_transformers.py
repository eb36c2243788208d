"""Language models of transformers whose head has the embedding's weight: one layer, searched, exported and packed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import Factorization, count_params, mean_macs, take_inventory
from rank_search.point import Choice, Point

transformers = pytest.importorskip("transformers")

TOKENS, WIDTH = 96, 32


def gpt2() -> nn.Module:
    shape = {"n_positions": 32, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=TOKENS, **shape, bos_token_id=0, eos_token_id=0)
    )


def llama() -> nn.Module:
    shape = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(
        vocab_size=TOKENS, hidden_size=WIDTH, **shape, tie_word_embeddings=True, pad_token_id=0
    )
    return transformers.LlamaForCausalLM(config)


def t5() -> nn.Module:
    shape = {"d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=TOKENS, d_model=WIDTH, **shape))


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def ids(count: int = 4) -> Tensor:
    return torch.randint(TOKENS, (count, 16), generator=torch.Generator().manual_seed(1))


def given(kind: Callable[[], nn.Module], ids: Tensor) -> dict[str, Any]:
    return {"input_ids": ids, **({"decoder_input_ids": ids.flip(1)} if kind is t5 else {"use_cache": False})}


TIES = {gpt2: ["transformer.wte"], llama: ["model.embed_tokens"]}
TIES[t5] = ["shared", "encoder.embed_tokens", "decoder.embed_tokens"]


@pytest.mark.parametrize("kind", TIES)
def test_head_and_embedding_are_one_layer_with_one_form(kind: Callable[[], nn.Module]) -> None:
    model, example = made(kind), given(kind, ids(1))
    inventory = take_inventory(model, example)
    assert [tie.name for tie in inventory.layers["lm_head"].ties] == TIES[kind]
    table = rs.options(model, [given(kind, ids())], example=example)
    point = Point({**rs.allocate(table, params=0.5).layers, "lm_head": Choice("svd", {"rank": 8})})
    forms = rs.factorize(model, point, table)
    costs = {"params": count_params(forms), "macs": mean_macs(forms, [example])}
    assert table.total(table.describe(point)) == costs
    assert not [name for name in forms.state_dict() if name.startswith(tuple(TIES[kind]))]
    dense = copy.deepcopy(model)
    for name, form in forms.named_modules():
        if isinstance(form, Factorization):
            dense.get_submodule(name).weight.data.copy_(form.weight)  # type: ignore[operator,union-attr]
    with torch.no_grad():
        ours, theirs, before = (each(**given(kind, ids())).logits for each in (forms, dense, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, before, atol=1e-2)


@pytest.mark.parametrize("kind", [gpt2, llama])
def test_a_searched_one_is_exported_packed_and_loaded(kind: Callable[[], nn.Module], tmp_path: Path) -> None:
    task = rs.LanguageModel(made(kind), ids().flatten(), ids().flatten(), length=16)
    point = {"name": "mine", "layers": {"lm_head": {"factorization": "svd", "rank": 6}}}
    tables = {
        "study": {"name": "lm", "trials": 2, "store": str(tmp_path / "lm.sqlite")},
        "task": {"factory": "(in memory)"},
        "search": {"objectives": ["nats", "params"], "seeds": {"allocations": 0, "points": [point]}},
        "training": {"epochs": 1},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    with rs.Store.open(result.store) as store:
        (number,) = [row.number for row in store.trials("lm") if row.point.layers["lm_head"].values]
        rs.export_trial(store, "lm", number, tmp_path / "small", task=task)
        rs.pack_trial(store, "lm", number, tmp_path / "small.rsz", task=task)
        trained = rs.build_model(store, "lm", number, task=task)
    with torch.no_grad():
        expected = trained(input_ids=ids(1), use_cache=False).logits
    for place in ("small", "small.rsz"):
        back = rs.load(tmp_path / place)
        torch.testing.assert_close(back(input_ids=ids(1))["logits"], expected)
        kept = {*dict(back.named_buffers()), *dict(back.named_parameters())}
        assert {"lm_head.left", "lm_head.right"} <= kept
        assert not [name for name in kept if name.startswith(TIES[kind][0])]


def test_a_packed_one_keeps_its_tie(tmp_path: Path) -> None:
    model, example = made(gpt2), given(gpt2, ids(1))
    packed = rs.pack_model(model, [given(gpt2, ids())], example=example)
    packed.write(tmp_path / "small.rsz")
    with torch.no_grad():
        expected = packed.model(**example).logits
    torch.testing.assert_close(rs.load(tmp_path / "small.rsz")(input_ids=ids(1))["logits"], expected)
    assert packed.model.get_submodule("lm_head").weight is packed.model.get_submodule("transformer.wte").weight


class Logits(nn.Module):
    """A language model that gives its logits alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = made(gpt2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.network(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


def test_a_model_in_memory_is_compressed(tmp_path: Path) -> None:
    def loss(logits: Tensor, aims: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), aims.flatten())

    data = [(ids()[:, :-1], ids()[:, 1:])]
    metric = {"metric": lambda logits, aims: float(loss(logits, aims)), "metric_name": "nats", "loss": loss}
    place = {"store": tmp_path / "s.sqlite", "trials": 3, "training": {"epochs": 0}}
    found = rs.compress(Logits().eval(), train=data, selection=data, test=data, **metric, **place)
    small = min(found.front, key=lambda trial: trial.measurements["params"])
    assert "network.lm_head" in small.point.layers
    assert small.measurements["params"] == count_params(found.model(small.number))
