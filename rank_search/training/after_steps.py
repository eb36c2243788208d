"""What factorizations move themselves, after each step of the optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import final

import torch
from torch import nn

from rank_search.layers import Factorization, plugin_errors
from rank_search.training.schedules import rate_factor
from rank_search.training.settings import TrainingSettings


def apart_ids(model: nn.Module) -> set[int]:
    """The `id` of every parameter that a factorization of the model moves itself, and no optimizer.

    >>> apart_ids(nn.Linear(2, 2))
    set()
    """
    return {id(parameter) for form in _forms(model) for parameter in form.apart()}


@final
class AfterSteps:
    """Calls `after_step` of every factorization in a model.

    A step's share of the training is its learning rate over the sum of those of all steps, so that the shares are one
    in all, however long the training is and whatever its optimizer. They are a function of the settings and the step:
    there is nothing to remember.

    Args:
        total: the steps of the whole training.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, total: int) -> None:
        self._forms = [form for form in _forms(model) if type(form).after_step is not Factorization.after_step]
        self._settings, self._total = settings, total

    @cached_property
    def _sum(self) -> float:
        return sum(rate_factor(self._settings, step, self._total) for step in range(self._total))

    @torch.no_grad()
    def move_(self, step: int) -> None:
        """Let them move what is theirs after this step, and forget the gradients of it.

        Raises:
            ContractError: one of them raises.
        """
        for form in self._forms:
            with plugin_errors(type(form), "after_step()", form.layer):
                form.after_step(rate_factor(self._settings, step, self._total) / self._sum)
                for parameter in form.apart():
                    parameter.grad = None


def _forms(model: nn.Module) -> Iterator[Factorization]:
    return (module for module in model.modules() if isinstance(module, Factorization))
