"""Attention of several heads, opened: the projections of queries, keys and values, and of outputs, as four layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from rank_search.layers import Opened, linear_of, viewed

_Masks = tuple[Tensor | None, Tensor | None]
"""What is added to the scores, queries × keys for all or for each head of each example; and batch × keys."""


class OpenedAttention(Opened):
    """`nn.MultiheadAttention` as the layers `q`, `k`, `v` and `o`.

    Nested tensors, and PyTorch's fused operation for evaluation, are not for it: that operation takes the weights of
    all projections as one.
    """

    in_proj_bias = None  # by these two PyTorch's Transformer modules know that their own fused operation cannot be used
    _qkv_same_embed_dim = False

    @classmethod
    def classes(cls) -> tuple[type[nn.Module], ...]:
        return (nn.MultiheadAttention,)

    @classmethod
    def refusal(cls, module: nn.Module) -> str:
        projection = getattr(module, "out_proj", None)
        if type(projection) not in (nn.Linear, NonDynamicallyQuantizableLinear):
            return f"its out_proj is {type(projection).__name__}, not the linear layer it was made with"
        return ""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__(module)
        self.num_heads, self.batch_first, self.dropout = module.num_heads, module.batch_first, module.dropout
        self.add_zero_attn = module.add_zero_attn
        separate = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        weights = separate if module.in_proj_weight is None else module.in_proj_weight.chunk(3)
        biases = (None,) * 3 if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
        self.q, self.k, self.v = map(linear_of, weights, biases)
        self.o = linear_of(module.out_proj.weight, module.out_proj.bias)
        self.bias_k = None if module.bias_k is None else viewed(module.bias_k)
        self.bias_v = None if module.bias_v is None else viewed(module.bias_v)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal is a hint about attn_mask; give that too.")
        masks = _canonical(attn_mask, key_padding_mask, query.dtype)
        causal = is_causal and key_padding_mask is None and not need_weights
        given = (self.q(query), self.k(key), self.v(value))
        q, k, v = (self._batched(each) for each in given)
        k, v, masks = self._with_more_keys(k, v, (None, masks[1]) if causal else masks)
        mask = _one_mask(masks, len(q), self.num_heads)
        heads, weights = self._attended((q, k, v), mask, causal, need_weights)
        attended = heads.transpose(1, 2).flatten(2)  # batch × queries × features
        outputs = self.o(self._as_given(attended, query.dim()))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return outputs, weights.squeeze(0) if weights is not None and query.dim() == 2 else weights

    def _batched(self, x: Tensor) -> Tensor:
        """As batch × length × features."""
        if x.dim() == 2:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _as_given(self, x: Tensor, dimensions: int) -> Tensor:
        if dimensions == 2:
            return x.squeeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _with_more_keys(self, k: Tensor, v: Tensor, masks: _Masks) -> tuple[Tensor, Tensor, _Masks]:
        """With the learned key and value, and with zeros, where there are such."""
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(k), -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(v), -1, -1)], 1)
            masks = _padded(masks)
        if self.add_zero_attn:
            k, v, masks = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1)), _padded(masks)
        return k, v, masks

    def _attended(
        self, projected: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, causal: bool, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Of each head batch × heads × queries × features, and, if asked for, its weights."""
        q, k, v = (torch.unflatten(each, -1, (self.num_heads, -1)).transpose(1, 2) for each in projected)
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal), None
        scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
        return weights @ v, weights


def _canonical(attn_mask: Tensor | None, padding: Tensor | None, dtype: torch.dtype) -> _Masks:
    """Both as numbers that are added to the scores."""
    return _added(attn_mask, dtype), _added(padding, dtype)


def _added(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if mask is None or mask.is_floating_point():
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask.bool(), -torch.inf)


def _padded(masks: _Masks) -> _Masks:
    """With a key more, which every query may attend to."""
    both, padding = masks
    return None if both is None else F.pad(both, (0, 1)), None if padding is None else F.pad(padding, (0, 1))


def _one_mask(masks: _Masks, batch: int, heads: int) -> Tensor | None:
    """For all heads of all examples, as far as they differ: 1 or batch × 1 or heads × 1 or queries × keys."""
    both, padding = masks
    if both is not None:
        both = both[None, None] if both.dim() == 2 else torch.unflatten(both, 0, (batch, heads))
    if padding is None:
        return both
    added = padding.reshape(batch, 1, 1, -1)
    return added if both is None else both + added
