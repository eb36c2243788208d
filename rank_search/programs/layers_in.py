"""Which calls of a program are layers: modules of PyTorch that hold their own parameters, under the names of the file.

A search looks for layers among a network's modules, and a program has only calls. So a call of a convolution, a linear
map, an embedding or a batch norm on parameters of the file becomes a module again. That is done only where nothing else
uses these parameters, and the file has no more below their name than such a module has, so that it may be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from torch import Tensor, nn

from rank_search.errors import ExportError
from rank_search.programs.operator_calls import OperatorCall
from rank_search.programs.steps import Ref, Step, names_in, references, used_by

Made = tuple[type[nn.Module], tuple[tuple[str, Any], ...]]
"""A class of modules, and what it is made with."""


@final
@dataclass(frozen=True)
class LayerCall:
    """A call that is a layer.

    Attributes:
        name: the layer's dotted name.
        made: how it is made.
        x: the value that it is applied to.
        tensors: the graph's names of its parameters and buffers, by their names in the module.
    """

    name: str
    made: Made
    x: Any
    tensors: Mapping[str, str]

    def build(self) -> nn.Module:
        """The module, without numbers."""
        kind, settings = self.made
        return kind(**dict(settings), device="meta")


@final
@dataclass(frozen=True)
class Stored:
    """A program's own tensors.

    Attributes:
        names: for what the graph calls each, its name in the file.
        tensors: by their names in the file.
        dimensions: of each value of the graph, as far as it is known.
    """

    names: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    dimensions: Mapping[str, int]

    def of(self, value: Any) -> Tensor | None:
        """The tensor that an argument is, if it is one of the file."""
        return self.tensors[self.names[value.name]] if isinstance(value, Ref) and value.name in self.names else None

    def layer_name(self, scope: str, parts: Mapping[str, str]) -> str | None:
        """The layer that has these parts: the module that the call was in, if they are its own, or else by their names.

        Tied layers have one parameter and a name each, so that the module's comes first.
        """
        given = {leaf: self.names[value] for leaf, value in parts.items()}
        if scope and all(self._is_same(f"{scope}.{leaf}", name) for leaf, name in given.items()):
            return scope
        prefixes = {name.removesuffix(f".{leaf}") if name.endswith(f".{leaf}") else "" for leaf, name in given.items()}
        return prefixes.pop() or None if len(prefixes) == 1 else None

    def _is_same(self, one: str, other: str) -> bool:
        return one in self.tensors and self.tensors[one] is self.tensors[other]

    def are_all_of(self, layer: LayerCall) -> bool:
        """Whether the tensors below a layer's name are those that its module has, parameters and buffers.

        A bias that is added by another call, say, would be added again by a module that has one.
        """
        start = f"{layer.name}."
        found = {name.removeprefix(start): each for name, each in self.tensors.items() if name.startswith(start)}
        planned = layer.build().state_dict(keep_vars=True)
        return _are_parameters(found) == _are_parameters(planned)


def _are_parameters(tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    return {name: isinstance(each, nn.Parameter) for name, each in tensors.items()}


def with_layers(
    calls: Sequence[OperatorCall], outputs: list[Any], stored: Stored
) -> tuple[list[Step], dict[str, LayerCall]]:
    """The steps of a program, calls of layers among them, and the layers by name.

    Raises:
        ExportError: a call is one that only a network in training makes.
    """
    for call in calls:
        if call.target.startswith("aten.") and call.given().get("train") is True:
            raise ExportError(f"{call.target} is that of a network in training. Export it after model.eval().")
    turned = _transposed(calls, stored)
    found = {call.makes: layer for call in calls if (layer := _layer(call, stored, turned)) is not None}
    found = _alone(found, calls, outputs, stored, turned)
    steps = [_step(call, found.get(call.makes)) for call in calls]
    return _needed(steps, outputs), {layer.name: layer for layer in found.values()}


def _step(call: OperatorCall, layer: LayerCall | None) -> Step:
    if layer is None:
        return call.step
    return Step(call.makes, None, [layer.x], {}, layer.name)


# ---- which calls -----------------------------------------------------------------------------------------


def _layer(call: OperatorCall, stored: Stored, turned: Mapping[str, str]) -> LayerCall | None:
    """The layer that a call is, if it is one."""
    reader = _READERS.get(call.target)
    if reader is None:
        return None
    given = call.given()
    if call.target in _TIMES:
        given = _times(given, turned)
    found = reader(given, stored)
    if found is None:
        return None
    made, x, parts = found
    tensors = {leaf: value.name for leaf, value in parts.items() if isinstance(value, Ref)}
    is_stored = all(value is None or stored.of(value) is not None for value in parts.values())
    name = stored.layer_name(call.scope, tensors) if is_stored and tensors and isinstance(x, Ref) else None
    layer = None if name is None else LayerCall(name, made, x, tensors)
    return layer if layer is not None and stored.are_all_of(layer) else None


Found = tuple[Made, Any, Mapping[str, Any]] | None
"""How a layer is made, what it is applied to, and its parts as arguments."""


def _made(kind: type[nn.Module], **settings: Any) -> Made:
    return kind, tuple((name, tuple(each) if isinstance(each, list) else each) for name, each in settings.items())


def _linear(given: Mapping[str, Any], stored: Stored) -> Found:
    weight, bias = stored.of(given["weight"]), given["bias"]
    if weight is None or weight.dim() != 2:
        return None
    made = _made(nn.Linear, in_features=weight.shape[1], out_features=weight.shape[0], bias=bias is not None)
    return _typed(made, weight), given["input"], {"weight": given["weight"], "bias": bias}


def _embedding(given: Mapping[str, Any], stored: Stored) -> Found:
    weight, padding = stored.of(given["weight"]), given["padding_idx"]
    if weight is None or weight.dim() != 2 or given["sparse"] or given["scale_grad_by_freq"]:
        return None
    made = _made(
        nn.Embedding,
        num_embeddings=weight.shape[0],
        embedding_dim=weight.shape[1],
        padding_idx=padding if isinstance(padding, int) and padding >= 0 else None,
    )
    return _typed(made, weight), given["indices"], {"weight": given["weight"]}


_CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _convolution(given: Mapping[str, Any], stored: Stored, transposed: bool = False) -> Found:
    weight, bias = stored.of(given["weight"]), given["bias"]
    if weight is None or not 3 <= weight.dim() <= 5:
        return None
    dimensions, groups = weight.dim() - 2, given["groups"]
    ins, outs = weight.shape[:2] if transposed else (weight.shape[1], weight.shape[0])
    settings = {
        "in_channels": ins if transposed else ins * groups,
        "out_channels": outs * groups if transposed else outs,
        "kernel_size": list(weight.shape[2:]),
        **{name: _each(given[name], dimensions) for name in ("stride", "padding", "dilation")},
        **({"output_padding": _each(given["output_padding"], dimensions)} if transposed else {}),
        "groups": groups,
        "bias": bias is not None,
    }
    kind = (_TRANSPOSED if transposed else _CONVOLUTIONS)[dimensions - 1]
    return _typed(_made(kind, **settings), weight), given["input"], {"weight": given["weight"], "bias": bias}


def _transposed_convolution(given: Mapping[str, Any], stored: Stored) -> Found:
    return _convolution(given, stored, transposed=True)


def _any_convolution(given: Mapping[str, Any], stored: Stored) -> Found:
    return _convolution(given, stored, transposed=bool(given["transposed"]))


def _each(value: Any, dimensions: int) -> Any:
    """One number for each dimension, or a word."""
    return value * dimensions if isinstance(value, list) and len(value) == 1 else value


_NORMS: Final = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def _norm(given: Mapping[str, Any], stored: Stored) -> Found:
    """A batch norm with its statistics; they stay as they are, as in evaluation."""
    mean, variance = stored.of(given["running_mean"]), stored.of(given["running_var"])
    if mean is None or variance is None:
        return None
    if given.get("training"):
        raise ExportError(
            "A batch norm takes its statistics from the batch, as in training. Export the network after model.eval()."
        )
    kind = _NORMS.get(stored.dimensions.get(getattr(given["input"], "name", ""), 0))
    if kind is None or (given["weight"] is None) != (given["bias"] is None):
        return None
    affine = given["weight"] is not None
    momentum = given["momentum"] or None  # in evaluation PyTorch writes 0 for an average over all batches
    made = _made(kind, num_features=len(mean), eps=given["eps"], momentum=momentum, affine=affine)
    parts = {leaf: given[leaf] for leaf in ("weight", "bias", "running_mean", "running_var")}
    return _typed(made, mean), given["input"], parts


def _typed(made: Made, tensor: Tensor) -> Made:
    return made[0], (*made[1], ("dtype", tensor.dtype))


def _times(given: Mapping[str, Any], turned: Mapping[str, str]) -> dict[str, Any]:
    """A product with a matrix that was transposed just before, as what a linear map is given."""
    right = given["mat2"]
    weight = Ref(turned[right.name]) if isinstance(right, Ref) and right.name in turned else None
    if "mat1" not in given:
        return {"input": given["self"], "weight": weight, "bias": None}
    plain = given["beta"] == 1 and given["alpha"] == 1
    return {"input": given["mat1"], "weight": weight if plain else None, "bias": given["self"]}


_TIMES: Final = frozenset({"aten.mm.default", "aten.addmm.default"})
_READERS: Final[Mapping[str, Callable[[Mapping[str, Any], Stored], Found]]] = {
    **dict.fromkeys(("aten.linear.default", *_TIMES), _linear),
    "aten.embedding.default": _embedding,
    **{f"aten.conv{each}d.{overload}": _convolution for each in (1, 2, 3) for overload in ("default", "padding")},
    "aten.conv_transpose1d.default": _transposed_convolution,
    **{f"aten.conv_transpose{each}d.input": _transposed_convolution for each in (2, 3)},
    "aten.convolution.default": _any_convolution,
    **dict.fromkeys(("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default"), _norm),
}


def _transposed(calls: Iterable[OperatorCall], stored: Stored) -> dict[str, str]:
    """Values that are a matrix of the file, transposed: by name, the name of the matrix."""
    found = {}
    for call in calls:
        if call.target not in ("aten.permute.default", "aten.t.default", "aten.transpose.int"):
            continue
        given = call.given()
        matrix, ways = stored.of(given["self"]), (given.get("dims"), given.get("dim0"), given.get("dim1"))
        is_turn = call.target == "aten.t.default" or ways in (([1, 0], None, None), (None, 0, 1), (None, 1, 0))
        if matrix is not None and matrix.dim() == 2 and is_turn:
            found[call.makes] = given["self"].name
    return found


# ---- which of them may be modules ------------------------------------------------------------------------


def _alone(
    found: Mapping[str, LayerCall],
    calls: Sequence[OperatorCall],
    outputs: list[Any],
    stored: Stored,
    turned: Mapping[str, str],
) -> dict[str, LayerCall]:
    """Those layers whose tensors nothing but such layers uses, that are the same wherever they are called."""
    kept = dict(found)
    while True:
        used = set(references(outputs))
        for call in calls:
            if call.makes not in kept and call.makes not in turned:
                used |= used_by(call.step)
        taken = {id(stored.of(Ref(turned.get(name, name)))) for name in used if turned.get(name, name) in stored.names}
        wrong = {layer.name for layer in kept.values() if _is_wrong(layer, kept.values(), taken, stored)}
        if not wrong:
            return kept
        kept = {value: layer for value, layer in kept.items() if layer.name not in wrong}


def _is_wrong(layer: LayerCall, layers: Iterable[LayerCall], taken: set[int], stored: Stored) -> bool:
    own = {id(stored.of(Ref(value))) for value in layer.tensors.values()}
    others = [each for each in layers if each.name == layer.name]
    return bool(own & taken) or any((each.made, each.tensors) != (layer.made, layer.tensors) for each in others)


def _needed(steps: Sequence[Step], outputs: list[Any]) -> list[Step]:
    """The steps without those whose values nothing uses, which change nothing either."""
    needed, kept = set(references(outputs)), []
    for step in reversed(steps):
        schema = getattr(step.function, "_schema", None)
        changes = schema is not None and (schema.is_mutable or not schema.returns)
        if changes or needed & set(names_in(step.makes)):
            kept.append(step)
            needed |= used_by(step)
    return kept[::-1]
