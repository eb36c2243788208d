"""A network out of a file that `torch.export.save` wrote, without running or unpickling anything in it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from rank_search.errors import ExportError, TaskError
from rank_search.programs.archive import Archive
from rank_search.programs.layers_in import LayerCall, Stored, with_layers
from rank_search.programs.operator_calls import DEVICE, calls_of
from rank_search.programs.signature import Signature, signature_of
from rank_search.programs.sizes import BATCH
from rank_search.programs.steps import (
    Step,
    arranged,
    check_order,
    filled,
    in_order,
    references,
    run,
    used_by,
    with_last_uses,
)

_DAMAGED: Final = (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, AssertionError)


def read_program(path: str | Path) -> ProgramNetwork:
    """The network in a file of `torch.export.save`, in evaluation mode.

    Its layers are modules under their own names: linear maps, convolutions, embeddings and batch norms, each with its
    parameters. Everything between them is walked call by call. Nothing in the file is run, evaluated or unpickled to
    read it, and only operators of PyTorch's that make tensors from tensors are ever called.

    Raises:
        TaskError: the file is none of these, or holds what is not read; which operator, if it is one.
    """
    archive = Archive(Path(path))
    try:
        return _network(archive).eval()
    except ExportError as error:
        said = str(error).removesuffix(".")
        raise archive.refused(said[:1].lower() + said[1:]) from error
    except TaskError:
        raise
    except _DAMAGED as error:
        said = str(error).partition("\n")[0][:200]
        raise archive.refused(f"it is damaged, {type(error).__name__}: {said}. Export the network again") from error
    finally:
        archive.close()


def takes_any_batch(network: ProgramNetwork) -> bool:
    """Whether it was exported for batches of any size."""
    return network._program.signature.sizes.any_batch


def example_of_program(network: ProgramNetwork) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
    """What one forward takes, as a batch of one if it takes any: numbers from N(0, 1), or zeros where whole."""
    signature, generator = network._program.signature, torch.Generator().manual_seed(0)
    made = []
    for each, shape in zip(signature.inputs, signature.sizes.shapes, strict=True):
        size = [1 if known == BATCH else seen for known, seen in zip(shape, each.traced, strict=True)]
        floats = each.dtype.is_floating_point
        made.append((torch.randn(size, generator=generator) if floats else torch.zeros(size)).to(each.dtype))
    if signature.positional < len(made):
        return {each.name: tensor for each, tensor in zip(signature.inputs, made, strict=True)}
    return made[0] if len(made) == 1 else tuple(made)


def _network(archive: Archive) -> ProgramNetwork:
    program = archive.program()
    signature, calls = signature_of(program), calls_of(program["graph_module"]["graph"]["nodes"])
    state, constants = archive.weights(), archive.constants()
    values = program["graph_module"]["graph"]["tensor_values"]
    dimensions = {name: len(meta["sizes"]) for name, meta in values.items()}
    stored = Stored(signature.stored, {**constants, **state}, dimensions)
    outputs = list(signature.outputs)
    steps, layers = with_layers(calls, outputs, stored)
    check_order([DEVICE, *(each.value for each in signature.inputs), *signature.fixed, *stored.names], steps, outputs)
    used = set(references(outputs)).union(*map(used_by, steps))
    tensors = {value: name for value, name in signature.stored.items() if value in used}
    walk = _Walk(signature, with_last_uses(steps, outputs), tensors)
    return _taking([each.name for each in signature.inputs])(walk, layers, state, constants)


@final
@dataclass(frozen=True)
class _Walk:
    """How a network runs: its steps, and the names of the tensors that these use outside of layers."""

    signature: Signature
    steps: list[Step]
    tensors: Mapping[str, str]


class ProgramNetwork(nn.Module):
    """An exported program as a network: its layers are modules, and what is between them is walked call by call."""

    def __init__(
        self,
        walk: _Walk,
        layers: Mapping[str, LayerCall],
        state: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self._program = walk
        left = dict(layers)
        for name, tensor in state.items():
            _put_layer(self, name.rpartition(".")[0], left)
            _put_tensor(self, name, tensor, is_kept=True)
        for name in list(left):
            _put_layer(self, name, left)
        for name in constants.keys() - state.keys():
            _put_tensor(self, name, constants[name], is_kept=False)
        for name, layer in layers.items():
            _check(self.get_submodule(name), name, layer)
        for name in walk.tensors.values():
            _tensor(self, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Its class is made again, from the names of its inputs."""
        return _empty, ([each.name for each in self._program.signature.inputs],), self.__dict__

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """What the program returns, in the same structure.

        Raises:
            ValueError: it was not exported for inputs of these sizes.
            TypeError: these are not its inputs.
        """
        signature = self._program.signature
        given = in_order([each.name for each in signature.inputs], inputs, named)
        if said := signature.sizes.complaint([each.shape for each in given]):
            raise ValueError(f"{said}. Export the network with that dimension in dynamic_shapes")
        values: dict[str, Any] = {each.value: tensor for each, tensor in zip(signature.inputs, given, strict=True)}
        values[DEVICE] = given[0].device if given else torch.device("cpu")
        values |= signature.fixed
        values |= {value: _tensor(self, name) for value, name in self._program.tensors.items()}
        run(self._program.steps, values, self.get_submodule)
        return arranged(signature.structure, [filled(each, values) for each in signature.outputs])


def _taking(names: list[str]) -> type[ProgramNetwork]:
    """The class of networks whose forward takes inputs of these names, for whoever asks for its signature."""

    def forward(self: ProgramNetwork, *inputs: Tensor, **named: Tensor) -> Any:
        return ProgramNetwork.forward(self, *inputs, **named)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken = inspect.Signature([inspect.Parameter(name, kind) for name in ("self", *names)])
    forward.__signature__ = taken  # type: ignore[attr-defined]
    return type("ProgramNetwork", (ProgramNetwork,), {"forward": forward, "__doc__": ProgramNetwork.__doc__})


def _empty(names: list[str]) -> ProgramNetwork:
    kind = _taking(names)
    return kind.__new__(kind)


# ---- modules and tensors by their dotted names -----------------------------------------------------------


def _holder(network: nn.Module, path: list[str]) -> nn.Module:
    """The module of a name, made where there is none; one that would hide something of a module's own is refused."""
    for part in path:
        found = network._modules.get(part)
        if found is None:
            found = nn.Module()
            network.add_module(part, found)
        network = found
    return network


def _put_layer(network: nn.Module, name: str, left: dict[str, LayerCall]) -> None:
    """The layer of a name, if it is among those left; it is not any more."""
    if name in left:
        *path, leaf = name.split(".")
        _holder(network, path).add_module(leaf, left.pop(name).build())


def _put_tensor(network: nn.Module, name: str, tensor: Tensor, is_kept: bool) -> None:
    *path, leaf = name.split(".")
    holder = _holder(network, path)
    if isinstance(tensor, nn.Parameter):
        holder.register_parameter(leaf, tensor)
    elif leaf in holder._buffers:
        holder._buffers[leaf] = tensor
    else:
        holder.register_buffer(leaf, tensor, persistent=is_kept)


def _tensor(network: nn.Module, name: str) -> Tensor:
    *path, leaf = name.split(".")
    holder = network.get_submodule(".".join(path))
    found = holder._parameters.get(leaf)
    return holder._buffers[leaf] if found is None else found  # type: ignore[return-value]


def _check(module: nn.Module, name: str, layer: LayerCall) -> None:
    """A layer's tensors have the shapes that a module of its settings has."""
    found = module.state_dict()
    for leaf, plan in layer.build().state_dict().items():
        if found[leaf].shape != plan.shape:
            raise ValueError(f"{name}.{leaf} is of another shape than its layer has")
