"""How many multiply-adds each of PyTorch's products takes, in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

_REAL_IN_COMPLEX: Final = 4
"""(a + ib)(c + id) = ac − bd + i(ad + bc)."""


def multiply_adds_of(func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[Any], int] | None:
    """How many multiply-adds an operation takes, asked of what it gave; None if it is no product.

    A product of complex numbers counts as the four of real numbers that it stands for. An operation in place counts as
    the one that is not. What is not listed here PyTorch may have a formula for, or a user have registered one
    (`torch.utils.flop_counter.register_flop_formula`; one multiply-add = two of its operations).
    """
    formula = _PRODUCTS.get(func._schema.name.removesuffix("_")) or _registered(func)
    if formula is None:
        return None
    each = _REAL_IN_COMPLEX if any(isinstance(x, Tensor) and x.is_complex() for x in args) else 1
    return lambda out: each * formula(*args, **kwargs, out_val=out)


def _registered(func: OpOverload) -> Callable[..., int] | None:
    theirs = flop_registry.get(func._overloadpacket)
    return None if theirs is None else lambda *args, **kwargs: theirs(*args, **kwargs) // 2


# ---- matrices --------------------------------------------------------------------------------------------


def _entries(x: Tensor) -> int:
    """Numbers that a tensor holds: of a sparse one, those that it stores."""
    if x.layout is torch.strided or x.is_nested:
        return x.numel()
    return x._values().numel() if x.layout is torch.sparse_coo else x.values().numel()


def _product(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """a: … × m × k, b: … × k × n."""
    if b.layout is torch.strided:
        return _entries(a) * b.shape[-1]
    return a.shape[0] * _entries(b)


def _by_vector(matrix: Tensor, vector: Tensor, *_: Any, **__: Any) -> int:
    return _entries(matrix)


def _outer(added: Tensor, column: Tensor, row: Tensor, *_: Any, **__: Any) -> int:
    return column.numel() * row.numel()


def _added(product: Callable[..., int]) -> Callable[..., int]:
    """Of an operation that adds a product to its first argument."""
    return lambda added, *args, **kwargs: product(*args, **kwargs)


def _at_each_entry(added: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """Only where the sparse `added` has an entry."""
    return _entries(added) * a.shape[-1]


def _by_packed(x: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """Of a matrix in a form of its own; x: … × k."""
    return out_val.numel() * x.shape[-1]


def _each_product(a: Sequence[Tensor], b: Sequence[Tensor], *_: Any, **__: Any) -> int:
    return sum(map(_product, a, b))


def _grouped(a: Tensor, b: Tensor, offsets: Tensor | None = None, *_: Any, **__: Any) -> int:
    """Group g is a[g] · b[g]; where one of the two is a matrix, it is cut at the offsets, and ends at the last one."""
    if offsets is None or (a.dim() == 3 and b.dim() == 3):
        return _product(a, b)
    inner, columns = a.shape[-1], b.shape[-1]
    sizes = [a.shape[-2], inner, columns]
    cut = (1 if b.dim() == 2 else 0) if a.dim() == 2 else 2
    sizes[cut] = sizes[cut] if offsets.is_meta else int(offsets[-1])
    return math.prod(sizes)


def _scaled_grouped(a: Tensor, b: Tensor, scale_a: Any, scale_b: Any, offsets: Any = None, *_: Any, **__: Any) -> int:
    return _grouped(a, b, offsets)


# ---- forms of several arguments --------------------------------------------------------------------------


def _trilinear(a: Tensor, b: Tensor, c: Tensor, *args: Any, **__: Any) -> int:
    """a · b summed over what c does not have, times c summed over the rest; `expand_…`: dimensions that one lacks."""
    expand_a, expand_b, expand_c, summed = args[:4]
    shapes = [_expanded(x.shape, e) for x, e in ((a, expand_a), (b, expand_b), (c, expand_c))]
    sizes = [max(each) for each in zip(*shapes, strict=True)]
    first = set(range(len(sizes))) - (set(expand_a) & set(expand_b))
    second = (first - (set(summed) & set(expand_c))) | (set(range(len(sizes))) - set(expand_c))
    return sum(math.prod(sizes[i] for i in dimensions) for dimensions in (first, second))


def _expanded(shape: Iterable[int], at: Sequence[int]) -> list[int]:
    sizes = list(shape)
    for dimension in sorted(at):
        sizes.insert(dimension, 1)
    return sizes


def _distances(a: Tensor, b: Tensor, p: float = 2.0, *_: Any, out_val: Tensor, **__: Any) -> int:
    """Σ (a − b)² for each pair; another norm multiplies nothing."""
    return out_val.numel() * a.shape[-1] if p == 2 else 0


def _own_distances(a: Tensor, p: float = 2.0, *_: Any, out_val: Tensor, **__: Any) -> int:
    return out_val.numel() * a.shape[-1] if p == 2 else 0


def _weighted_rows(table: Tensor, rows: Tensor, *args: Any, per_sample_weights: Any = None, **__: Any) -> int:
    """A weighted sum of rows; a plain one multiplies nothing. The weights are the seventh argument."""
    weights = args[4] if len(args) > 4 else per_sample_weights
    return 0 if weights is None else rows.numel() * table.shape[-1]


# ---- convolutions ----------------------------------------------------------------------------------------


def _convolution(x: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """weight: out × in/groups × …"""
    return out_val.numel() * math.prod(weight.shape[1:])


def _transposed(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    """weight: in × out/groups × …"""
    return x.numel() * math.prod(weight.shape[1:])


def _either_convolution(x: Tensor, weight: Tensor, *args: Any, **kw: Any) -> int:
    """`args`: bias, stride, padding, dilation, transposed, …"""
    transposed = args[4]
    return (_transposed if transposed else _convolution)(x, weight, **kw)


def _over_time(x: Tensor, weight: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    """weight: steps × in × out."""
    return out_val.numel() * math.prod(weight.shape[:2])


def _quantized_convolution(x: Tensor, packed: Any, *_: Any, out_val: Tensor, **__: Any) -> int:
    return math.prod((out_val.numel(), *packed.weight().shape[1:]))


# ---- attention and recurrence ----------------------------------------------------------------------------


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape)) // 2  # type: ignore[no-untyped-call]


def _lengths(x: Tensor) -> list[int]:
    """Steps of each sequence of a batch × steps × features, which may be nested."""
    return [len(each) for each in x.unbind()] if x.is_nested else [x.shape[1]] * x.shape[0]


def _multi_head(query: Tensor, key: Tensor, value: Tensor, features: int, *args: Any, **__: Any) -> int:
    """Projections of query, key and value, scores, weighted values, and the projection of what comes out.

    `args`: heads, weight and bias of the projection of inputs, weight of the projection of outputs, …
    """
    to: Tensor = args[3]
    asked, known = _lengths(query), _lengths(key)
    projected = sum(asked) * features**2 + 2 * sum(known) * features**2
    attended = sum(2 * one * other * features for one, other in zip(asked, known, strict=True))
    return projected + attended + sum(asked) * to.numel()


def _encoder_layer(x: Tensor, features: int, *args: Any, **__: Any) -> int:
    """Attention of a sequence to itself, and two linear layers, whose weights are the 13th and the 15th of `args`."""
    widths: int = args[12].numel() + args[14].numel()
    return _multi_head(x, x, x, features, *args) + sum(_lengths(x)) * widths


def _recurrent_layer(x: Tensor, from_input: Tensor, from_state: Tensor, *_: Any, **__: Any) -> int:
    """x: steps × batch × features, both weights: (gates · hidden) × …"""
    return x.shape[0] * x.shape[1] * (from_input.numel() + from_state.numel())


def _recurrent(x: Tensor, weights: Sequence[Tensor], *_: Any, **__: Any) -> int:
    """All layers and directions; x: steps × batch × features, or the rows of packed sequences."""
    return math.prod(x.shape[:-1]) * sum(each.numel() for each in weights if each.dim() == 2)


def _named(formula: Callable[..., int], *names: str) -> dict[str, Callable[..., int]]:
    return {name if "::" in name else f"aten::{name}": formula for name in names}


_PRODUCTS: Final[Mapping[str, Callable[..., int]]] = {
    **_named(_product, "mm", "bmm", "_int_mm", "_scaled_mm", "_scaled_mm_v2", "_sparse_mm", "_sparse_sparse_matmul"),
    **_named(_product, "hspmm", "smm"),
    **_named(_added(_product), "addmm", "baddbmm", "addbmm", "_addmm_activation", "_sparse_addmm", "sspaddmm"),
    **_named(_by_vector, "mv", "dot", "vdot"),
    **_named(_added(_by_vector), "addmv"),
    **_named(_outer, "addr"),
    **_named(_at_each_entry, "sparse_sampled_addmm"),
    **_named(_by_packed, "_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"),
    **_named(_by_packed, "_weight_int4pack_mm_with_scales_and_zeros", "_mixed_dtypes_linear", "_dyn_quant_matmul_4bit"),
    **_named(_by_packed, "mkldnn_linear", "mkldnn::_linear_pointwise"),
    **_named(_by_packed, *(f"quantized::linear{ending}" for ending in ("", "_relu", "_dynamic", "_relu_dynamic"))),
    **_named(_by_packed, "quantized::linear_dynamic_fp16", "quantized::linear_relu_dynamic_fp16"),
    **_named(_each_product, "_foreach_mm"),
    **_named(_grouped, "_grouped_mm"),
    **_named(_scaled_grouped, "_scaled_grouped_mm"),
    **_named(_trilinear, "_trilinear"),
    **_named(_distances, "_cdist_forward", "_euclidean_dist"),
    **_named(_own_distances, "_pdist_forward"),
    **_named(_weighted_rows, "_embedding_bag", "_embedding_bag_forward_only"),
    **_named(_either_convolution, "convolution", "_convolution", "convolution_overrideable"),
    **_named(_convolution, "cudnn_convolution", "cudnn_convolution_relu", "miopen_convolution", "mkldnn_convolution"),
    **_named(_convolution, "cudnn_convolution_add_relu", "miopen_convolution_add_relu", "miopen_convolution_relu"),
    **_named(_convolution, "_slow_conv2d_forward", "slow_conv3d_forward", "slow_conv_dilated2d", "slow_conv_dilated3d"),
    **_named(_convolution, "_conv_depthwise2d", "conv_depthwise3d", "_nnpack_spatial_convolution", "_mps_convolution"),
    **_named(_convolution, "miopen_depthwise_convolution", "mkldnn::_convolution_pointwise"),
    **_named(_transposed, "cudnn_convolution_transpose", "miopen_convolution_transpose", "_mps_convolution_transpose"),
    **_named(_transposed, "slow_conv_transpose2d", "slow_conv_transpose3d"),
    **_named(_over_time, "conv_tbc"),
    **_named(_quantized_convolution, *(f"quantized::conv{n}d{relu}" for n in (1, 2, 3) for relu in ("", "_relu"))),
    **_named(_attention, "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math_for_mps"),
    **_named(_attention, "_scaled_dot_product_fused_attention_overrideable"),
    **_named(_multi_head, "_native_multi_head_attention", "_triton_multi_head_attention"),
    **_named(_encoder_layer, "_transformer_encoder_layer_fwd"),
    **_named(_recurrent_layer, "mkldnn_rnn_layer"),
    **_named(_recurrent, "_cudnn_rnn", "miopen_rnn"),
}
