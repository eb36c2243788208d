"""transformers' own classes in tiny configurations, with random weights, and what each is called with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
import transformers
from torch import Tensor, nn

WORDS: Final = 32
_HEADS: Final = {"num_attention_heads": 2, "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 24}
_ENDS: Final = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

Example = Mapping[str, Any]


def token_ids(examples: int, length: int, seed: int = 0) -> Tensor:
    """Ids of words, without those of the ends."""
    return torch.randint(3, WORDS, (examples, length), generator=torch.Generator().manual_seed(seed))


def of_causal(made: nn.Module) -> tuple[nn.Module, Example]:
    return made, {"input_ids": token_ids(1, 8), "use_cache": False}


def gpt2() -> tuple[nn.Module, Example]:
    config = transformers.GPT2Config(vocab_size=WORDS, n_positions=32, n_embd=16, n_layer=2, n_head=2, **_ENDS)
    return of_causal(transformers.GPT2LMHeadModel(config))


def llama() -> tuple[nn.Module, Example]:
    config = transformers.LlamaConfig(vocab_size=WORDS, num_key_value_heads=1, **_HEADS, **_ENDS)
    return of_causal(transformers.LlamaForCausalLM(config))


def mixtral() -> tuple[nn.Module, Example]:
    config = transformers.MixtralConfig(
        vocab_size=WORDS, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2, **_HEADS, **_ENDS
    )
    return of_causal(transformers.MixtralForCausalLM(config))


def t5() -> tuple[nn.Module, Example]:
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    example = {"input_ids": token_ids(1, 8), "decoder_input_ids": token_ids(1, 5, seed=1), "use_cache": False}
    return transformers.T5ForConditionalGeneration(config), example


def whisper() -> tuple[nn.Module, Example]:
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in _SIDE.items()}
    config = transformers.WhisperConfig(
        vocab_size=WORDS,
        d_model=16,
        num_mel_bins=8,
        max_source_positions=12,
        max_target_positions=16,
        decoder_start_token_id=3,
        **sizes,
        **_ENDS,
    )
    sound = torch.randn(1, 8, 24, generator=torch.Generator().manual_seed(0))
    example = {"input_features": sound, "decoder_input_ids": token_ids(1, 5), "use_cache": False}
    return transformers.WhisperForConditionalGeneration(config), example


_SIDE: Final = {"layers": 1, "attention_heads": 2, "ffn_dim": 24}


def vit() -> tuple[nn.Module, Example]:
    config = transformers.ViTConfig(image_size=16, patch_size=4, num_labels=5, **_HEADS)
    image = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return transformers.ViTForImageClassification(config), {"pixel_values": image}


def bert() -> tuple[nn.Module, Example]:
    config = transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=32, **_HEADS)
    ids = token_ids(1, 8)
    return transformers.BertForMaskedLM(config), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


_MODELS: Final[Mapping[str, Callable[[], tuple[nn.Module, Example]]]] = {
    each.__name__: each for each in (gpt2, llama, mixtral, t5, whisper, vit, bert)
}
NAMES: Final = tuple(_MODELS)


def pretrained(name: str) -> tuple[nn.Module, Example]:
    """The model of that name, the same each time, and an example of what it takes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, example = _MODELS[name]()
    return model.eval(), example


def modules_in(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers keep the modules of folders that it opens in there, not in the user's cache."""
    for module in (transformers.dynamic_module_utils, transformers.utils.hub):
        monkeypatch.setattr(module, "HF_MODULES_CACHE", str(cache), raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
