"""Sequential calibration: each block of layers is fitted to what the factorized blocks before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from rank_search.layers import (
    Bases,
    Factorization,
    Layer,
    OtherInputs,
    Plugins,
    factorize,
    fit_to,
    layer_in,
    shares_factors,
    weight_of,
)
from rank_search.point import Point
from rank_search.quantization import reestimate_batchnorm, reestimate_on
from rank_search.tasks import CalibrationPass, ForwardPass, LayerMoments, LossPass, of_uses, seeded


@torch.no_grad()
def factorize_in_order(
    model: nn.Module,
    point: Point,
    layers: Mapping[str, Layer],
    plugins: Plugins,
    bases: Callable[[str], Bases],
    calibration: CalibrationPass,
) -> nn.Module:
    """As `factorize`, but each layer is fitted to the inputs that it has in this very model.

    Blocks (see `block_of`) are taken in the order in which they run. For each there is one pass over the calibration
    batches, through a model whose earlier blocks are factorized and whose later ones are dense, batch norms with
    statistics taken again; what is seen of a block is dropped when its layers are fitted. The first block sees what it
    sees in the dense model: where the bases are from the same batches, there is no pass for it. A layer that runs more
    than once, or has others tied to it, is fitted before the first time. One that no batch reaches keeps its fit to
    what it sees in the dense model, and so do forms that share factors, as they are fitted together. What the loss sees
    of the outputs stays that of the dense model, too.

    Args:
        bases: made of what the layers of the dense model see.

    Raises:
        LayerError: as `factorize`.
        TaskError: the model does not run on the batches.
    """
    made = factorize(model, point, layers, plugins, bases)
    chosen = {name: layers[name] for name, choice in point.layers.items() if not choice.is_dense}
    if not chosen:
        return made
    with ExitStack() as stack:
        dense = {name: stack.enter_context(_as_dense(model, made, layer)) for name, layer in chosen.items()}
        for number, block in enumerate(_blocks(calibration.order(made, chosen))):
            if number:
                _settle_norms(calibration, made)
            is_known = number == 0 and calibration.of_bases
            found = {} if is_known else _seen(calibration, model, made, {name: chosen[name] for name in block}, bases)
            for name in block:
                dense[name]()
                if name in found and not shares_factors(_form(made, name)):
                    weight = weight_of(model, name)
                    fit_to(_form(made, name), weight, OtherInputs(weight, bases(name), found[name]))
    return made


def _form(made: nn.Module, name: str) -> Factorization:
    form = made.get_submodule(name)
    assert isinstance(form, Factorization)
    return form


def block_of(name: str) -> str:
    """The block that a layer belongs to: its name up to the last number in it; without one the layer is its own.

    >>> block_of("model.layers.3.self_attn.q_proj"), block_of("features.0"), block_of("head")
    ('model.layers.3', 'features.0', 'head')
    """
    parts = name.split(".")
    numbered = [place for place, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[-1] + 1]) if numbered else name


def _blocks(names: Iterable[str]) -> Iterable[list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(block_of(name), []).append(name)
    return found.values()


@contextmanager
def _as_dense(model: nn.Module, made: nn.Module, layer: Layer) -> Iterator[Callable[[], None]]:
    """The form of a layer, and what is tied to it, compute as in the dense model until they are told to stop."""
    stands_in = [(made.get_submodule(user.name), layer_in(model, user.name)) for user in layer.users]
    for form, dense in stands_in:
        form.forward = dense.forward

    def stop() -> None:
        for form, _ in stands_in:
            vars(form).pop("forward", None)

    try:
        yield stop
    finally:
        stop()


def _settle_norms(calibration: CalibrationPass, model: nn.Module) -> None:
    if isinstance(calibration, LossPass):
        with seeded(calibration.rng_seed):
            reestimate_batchnorm(calibration.task, model, calibration.norm_batches)
    elif isinstance(calibration, ForwardPass):
        reestimate_on(model, calibration.batches)


def _seen(
    calibration: CalibrationPass,
    model: nn.Module,
    made: nn.Module,
    layers: Mapping[str, Layer],
    bases: Callable[[str], Bases],
) -> Mapping[str, Tensor]:
    """The moments of what these layers see in the model that is being made, both uses of tied weights in them."""
    weighed = {name: bases(name).weighed for name in layers}
    # A diagonal is how often each token occurs (see `of_uses`), and not what the loss sees.
    of_loss = {name: each.half for name, each in weighed.items() if each is not None and each.half.dim() > 1}
    return of_uses(LayerMoments(calibration.moments(made, layers), of_loss), model, layers).inputs
