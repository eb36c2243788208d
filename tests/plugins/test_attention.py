"""Attention, opened: the laws, and what PyTorch's own gives with every mask and option."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from rank_search_plugins.attention import OpenedAttention
from torch import Tensor, nn

from rank_search.layers import layer_by_layer
from rank_search.layers.costs import count_macs
from rank_search.testing import OpenedLaws

BATCH, QUERIES, KEYS, WIDTH, HEADS = 3, 4, 5, 8, 2


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    made = nn.MultiheadAttention(WIDTH, HEADS, **options).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


def inputs(*widths: int, batch_first: bool = True) -> tuple[Tensor, ...]:
    lengths = (QUERIES, KEYS, KEYS)
    made = (torch.randn(BATCH, length, width) for length, width in zip(lengths, widths, strict=True))
    return tuple(each.double() if batch_first else each.double().transpose(0, 1) for each in made)


class TestOpenedAttention(OpenedLaws):
    opener = OpenedAttention
    samples = (
        (attention(), inputs(8, 8, 8, batch_first=False)),
        (attention(batch_first=True, bias=False), inputs(8, 8, 8)),
        (attention(batch_first=True, kdim=5, vdim=6), inputs(8, 5, 6)),
        (attention(batch_first=True, add_bias_kv=True, add_zero_attn=True), inputs(8, 8, 8)),
    )


def masks() -> dict[str, dict[str, Tensor]]:
    torch.manual_seed(1)
    padded = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padded[1, 3:] = True
    each_head = torch.rand(BATCH * HEADS, QUERIES, KEYS) > 0.6
    each_head[..., 0] = False
    return {
        "none": {},
        "padding": {"key_padding_mask": padded},
        "numbers": {"attn_mask": torch.randn(QUERIES, KEYS).double()},
        "each head": {"attn_mask": each_head},
        "padding, and each head": {"key_padding_mask": padded, "attn_mask": each_head},
        "both numbers": {"key_padding_mask": padded * -3.0, "attn_mask": torch.randn(QUERIES, KEYS).double()},
    }


def assert_same(one: Any, other: Any) -> None:
    for expected, found in zip(one, other, strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Support for mismatched")  # a mask of truth beside one of numbers
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize(
    "options",
    [{"batch_first": True}, {}, {"add_bias_kv": True, "add_zero_attn": True}, {"kdim": 8, "vdim": 6, "bias": False}],
    ids=str,
)
def test_masks_and_weights_are_pytorchs(options: dict[str, Any], mask: str) -> None:
    module = attention(**options)
    x = inputs(8, 8, options.get("vdim", 8), batch_first=options.get("batch_first", False))
    for training, wanted, average in product((False, True), (False, True), (False, True)):
        asked = {**masks()[mask], "need_weights": wanted, "average_attn_weights": average}
        expected = module.train(training)(*x, **asked)
        assert_same(expected, OpenedAttention(module).train(training)(*x, **asked))


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_causal_attention_is_pytorchs(padded: bool, wanted: bool) -> None:
    module, x = attention(batch_first=True), torch.randn(BATCH, QUERIES, WIDTH).double()
    mask = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.double)
    padding = torch.zeros(BATCH, QUERIES).double()
    padding[0, 2:] = -torch.inf
    asked = {"attn_mask": mask, "is_causal": True, "need_weights": wanted, "key_padding_mask": padding * padded}
    asked |= {} if padded else {"key_padding_mask": None}
    assert_same(module(x, x, x, **asked), OpenedAttention(module)(x, x, x, **asked))
    with pytest.raises(RuntimeError, match="attn_mask"):
        OpenedAttention(module)(x, x, x, is_causal=True)


@pytest.mark.parametrize("average", [False, True])
def test_a_sequence_alone_is_no_batch(average: bool) -> None:
    module, x = attention(), torch.randn(QUERIES, WIDTH).double()
    asked = {"average_attn_weights": average}
    assert_same(module(x, x, x, **asked), OpenedAttention(module)(x, x, x, **asked))


def test_dropout_is_in_training_alone() -> None:
    opened, x = OpenedAttention(attention(dropout=0.5)), torch.randn(QUERIES, WIDTH).double()
    assert not torch.equal(opened.train()(x, x, x)[0], opened(x, x, x)[0])
    assert torch.equal(opened.eval()(x, x, x)[0], opened(x, x, x)[0])


@pytest.mark.parametrize("wanted", [False, True])
def test_as_many_multiply_adds_are_counted_as_of_the_closed_one(wanted: bool) -> None:
    module, (q, k, v) = attention(batch_first=True), inputs(8, 8, 8)
    call = {"query": q, "key": k, "value": v, "need_weights": wanted}
    with layer_by_layer():
        assert count_macs(OpenedAttention(module), [call]) == count_macs(module, [call]) > 0


def test_another_projection_of_the_outputs_is_not_opened() -> None:
    module = attention()
    module.out_proj = nn.Sequential(nn.Linear(WIDTH, WIDTH))  # type: ignore[assignment]
    assert OpenedAttention.refusal(module) == "its out_proj is Sequential, not the linear layer it was made with"
