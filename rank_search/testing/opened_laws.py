"""The laws of what opens modules: the same as before, with the very numbers of the module in layers inside."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn

from rank_search.layers import Example, Opened, count_params, forward, openers, tensors_of, weight_in, with_tensors
from rank_search.testing.case import normal

if TYPE_CHECKING:
    import pytest

_CLOSE: Final = 1e-9  # relative to the largest number, in float64

OpenedLaw = Callable[[type[Opened], nn.Module, Example], Iterator[str]]


def known(opener: type[Opened], module: nn.Module, example: Example) -> Iterator[str]:
    """1. It is installed, opens the module's class, and does not refuse the module."""
    if opener not in openers().values():
        yield f"{opener.__name__} is not installed under the entry point rank_search.opened"
    if not isinstance(module, opener.classes()):
        yield f"classes() does not name {type(module).__name__}"
    if reason := opener.refusal(module):
        yield f"it refuses the module: {reason}"


def same(opener: type[Opened], module: nn.Module, example: Example) -> Iterator[str]:
    """2. It gives what the module gives, in evaluation and in training, and the same gradient at its inputs."""
    made = opener(module)
    for training in (False, True):
        expected, found = (_with_gradients(each.train(training), example) for each in (module, made))
        yield from _differ(f"in {'training' if training else 'evaluation'}, it", expected, found)


def written(opener: type[Opened], module: nn.Module, example: Example) -> Iterator[str]:
    """3. Its parameters are the module's, all of them and no others: what is written into them changes the module."""
    made = opener(module)
    if count_params(made) != count_params(module):
        yield f"it has {count_params(made)} parameters, the module {count_params(module)}"
    _draw(made, 7)
    yield from _differ(
        "after other numbers were written into it, the module", _run(made, example), _run(module, example)
    )


def taken_back(opener: type[Opened], module: nn.Module, example: Example) -> Iterator[str]:
    """4. Its state, also that of a copy or after pickling, makes any other module of that form the same."""
    expected = _run(module, example)
    for how, made in (
        ("a copy", copy.deepcopy(opener(module))),
        ("pickling", pickle.loads(pickle.dumps(opener(module)))),  # noqa: S301 - made in this line
    ):
        yield from _differ(how, expected, _run(made, example))
        other = copy.deepcopy(module)
        _draw(other, 8)
        opener(other).load_state_dict(made.state_dict())
        yield from _differ(f"a module with the state of {how}", expected, _run(other, example))


def layered(opener: type[Opened], module: nn.Module, example: Example) -> Iterator[str]:
    """5. There are layers of installed kinds in it, none under the name of a module inside the closed one."""
    made = opener(module)
    if not [each for each in made.modules() if _is_layer(each)]:
        yield "no module in it is a layer of an installed kind"
    taken = {name for name, _ in module.named_children()} & {name for name, _ in made.named_children()}
    if taken:
        yield f"{', '.join(sorted(taken))} is a module in it and in what it was made from; name it otherwise"


OPENED_LAWS: Final[Mapping[str, OpenedLaw]] = MappingProxyType(
    {"Known": known, "Same": same, "Written": written, "Taken back": taken_back, "Layered": layered}
)


class OpenedLaws:
    """The laws as pytest tests, one for each law and sample: subclass it, name the class and give samples.

        class TestOpenedGLU(OpenedLaws):
            opener = OpenedGLU
            samples = ((GLU(4, 3), torch.zeros(2, 4)),)

    A sample is a module and what it is called with, as `Task.example` has it; the numbers in both are drawn. Give it no
    dropout: two modules do not draw the same numbers in the same order.
    """

    opener: ClassVar[type[Opened]]
    samples: ClassVar[Sequence[tuple[nn.Module, Example]]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "law" in metafunc.fixturenames:
            metafunc.parametrize("law", OPENED_LAWS)
            metafunc.parametrize("number", range(len(self.samples)), ids=[str(module) for module, _ in self.samples])

    def test_there_are_samples(self) -> None:
        assert self.samples

    def test_law(self, law: str, number: int) -> None:
        module, example = self.samples[number]
        assert broken(law, self.opener, module, example) == []


def broken(law: str, opener: type[Opened], module: nn.Module, example: Example) -> list[str]:
    """What of a law a module breaks; its numbers and those of what it is called with are drawn."""
    module = copy.deepcopy(module).double().eval()
    _draw(module, 1)
    return list(OPENED_LAWS[law](opener, module, with_tensors(example, _drawn)))


def _drawn(tensor: Tensor) -> Tensor:
    return normal(tensor.shape, torch.float64) if tensor.is_floating_point() else tensor


@torch.no_grad()
def _draw(module: nn.Module, number: int) -> None:
    for place, parameter in enumerate(module.parameters()):
        parameter.copy_(normal((number + place, *parameter.shape), torch.float64)[-1])


@torch.no_grad()
def _run(module: nn.Module, example: Example) -> list[Tensor]:
    return tensors_of(forward(module.eval(), example))


def _with_gradients(module: nn.Module, example: Example) -> list[Tensor]:
    """The outputs, and the gradients of the sum of their squares at the inputs."""
    inputs = with_tensors(example, lambda each: each.clone().requires_grad_(each.is_floating_point()))
    outputs = tensors_of(forward(module, inputs))
    wanted = [each for each in tensors_of(inputs) if each.requires_grad]
    total = torch.stack([each.square().sum() for each in outputs if each.requires_grad]).sum()
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [each.detach() for each in (*outputs, *found) if each is not None]


def _is_layer(module: nn.Module) -> bool:
    try:
        return weight_in(module).dim() > 1
    except Exception:  # noqa: BLE001 - of no kind, or without a weight
        return False


def _differ(what: str, expected: Sequence[Tensor], found: Sequence[Tensor]) -> Iterator[str]:
    shapes = [[list(each.shape) for each in tensors] for tensors in (expected, found)]
    if shapes[0] != shapes[1]:
        yield f"{what} gives {shapes[1]}, expected is {shapes[0]}"
        return
    for one, other in zip(expected, found, strict=True):
        if not bool((one - other).abs().max() <= _CLOSE * (1 + one.abs().max())):
            yield f"{what} gives what is {float((one - other).abs().max()):.3g} away from what is expected"
