"""Agreement with the dense model: what networks are measured by, and trained for, where there are no labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.errors import TaskError
from rank_search.layers import Example, forward, in_evaluation, shared, tensors_of, with_tensors
from rank_search.tasks.agreement_sums import AgreementSums, relative_error
from rank_search.tasks.batch_inputs import inputs_in
from rank_search.tasks.drawn_targets import drawn_cross_entropy
from rank_search.tasks.known_outputs import KnownOutputs
from rank_search.tasks.lent_batches import Lent, LentPass, Tested
from rank_search.tasks.logits import logits_of
from rank_search.tasks.modes import as_for_loss
from rank_search.tasks.padding import Padding, padding_of
from rank_search.tasks.supervised import teacher_distance
from rank_search.tasks.task import Batch, Task, checked_batches

OutputKind = Literal["auto", "classes", "values"]
"""What a network gives: logits of classes in the last dimension, or values of any other kind."""

AGREEMENT: Final = ("kl", "disagreement", "output_error")
"""Names of what is measured."""

WORST_AGREEMENT: Final = {"kl": 0.5, "disagreement": 0.3, "output_error": 0.5}
"""The worst worth having, where nothing else is asked for."""


@final
@dataclass(frozen=True, eq=False)
class AgreementTask(Task):
    """A network and inputs without labels: a model is measured by how far its outputs are from the dense model's.

    Measured are `output_error`, ‖ŷ − y‖²/‖y‖² over all outputs y of the dense model and ŷ of the model, and, where the
    outputs are logits of classes or tokens, `kl`, the mean of KL(dense ‖ model) in nats, and `disagreement`, the share
    of predictions whose most likely class is another. All are minimized, and 0 for the dense model. Trained is for `kl`
    or `output_error`. What models give for padding plays no part.

    Attributes:
        network: the trained model.
        training_batches, selection_batches, test_batches: loaders of inputs, or of pairs of inputs and targets, which
            nobody looks at; anything that can be iterated again and again. Without test batches nothing is reported on
            test data.
        one_example: what one forward takes; None: the first input of the first selection batch.
        outputs: what the network gives; `auto`: logits of classes where they are batch × classes, or where inputs are
            whole numbers and outputs batch × length × tokens; otherwise values.
        made_up: in words, what the batches are where they are no real data: batch norms then keep the dense model's
            statistics, in training too. Empty: they are real.
        measured_at_the_end: the task whose test data the front's members are measured on, by its own metric as well.
    """

    network: nn.Module
    training_batches: Iterable[Batch]
    selection_batches: Iterable[Batch]
    test_batches: Iterable[Batch] | None = None
    one_example: Example | None = None
    outputs: OutputKind = "auto"
    made_up: str = ""
    measured_at_the_end: Task | None = None
    _dense: nn.Module = field(init=False, repr=False)
    _known: KnownOutputs = field(init=False, repr=False, default_factory=KnownOutputs)

    def __post_init__(self) -> None:
        """Refuse what cannot work in any trial.

        Raises:
            TaskError: the network is no module, or there are two kinds of test data.
        """
        if not isinstance(self.network, nn.Module):
            raise TaskError(f"The task's network is {type(self.network).__name__}; pass an nn.Module.")
        if self.test_batches is not None and self.measured_at_the_end is not None:
            raise TaskError("There are test_batches, and a task that is measured at the end has its own. Give one.")
        # of its own structure, so that whoever watches the network's layers does not see these forwards, too
        object.__setattr__(self, "_dense", shared(self.network, {}))

    @classmethod
    def of(cls, task: Task, network: nn.Module, outputs: OutputKind = "auto") -> AgreementTask:
        """The same task without its labels: its batches are looked at for their inputs until the test."""
        return cls(
            network=network,
            training_batches=LentPass(task.training),
            selection_batches=LentPass(task.selection),
            one_example=task.example(),
            outputs=outputs,
            measured_at_the_end=task,
        )

    def gives_classes(self) -> bool:
        """Whether the outputs, on the example, are taken for logits of classes."""
        return self._are_classes(self._dense_outputs(self.example(), training=False), self.example())

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Example:
        if self.one_example is not None:
            return self.one_example
        inputs = inputs_in(next(checked_batches(self.selection_batches, "selection_batches")), None)
        first = next((each for each in tensors_of(inputs) if each.dim()), None)
        count = 0 if first is None else first.shape[0]
        return with_tensors(inputs, lambda each: each[:1] if each.dim() and each.shape[0] == count else each)

    def training(self) -> Iterable[Batch]:
        return self.training_batches

    def selection(self) -> Iterable[Batch]:
        return self.selection_batches

    def test(self) -> Iterable[Batch] | None:
        if self.measured_at_the_end is None:
            return self.test_batches
        found = self.measured_at_the_end.test()
        return None if found is None else map(Tested, found)

    def inputs(self, batch: Batch) -> Example:
        if isinstance(batch, Lent) and self.measured_at_the_end is not None:
            return self.measured_at_the_end.inputs(batch.batch)
        return inputs_in(batch, self.example())

    def mask(self, batch: Batch) -> Tensor | None:
        if isinstance(batch, Lent) and self.measured_at_the_end is not None:
            return self.measured_at_the_end.mask(batch.batch)
        return None

    def keeps_statistics(self) -> bool:
        return bool(self.made_up)

    def meanings(self) -> Mapping[str, str]:
        on = self.made_up or "the selection data, without labels"
        return {
            "kl": f"mean KL(dense ‖ model) of the predictions on {on}, in nats: agreement with the dense model",
            "disagreement": f"share of top-1 predictions other than the dense model's on {on}: agreement with it",
            "output_error": f"‖ŷ − y‖²/‖y‖² of the outputs ŷ from the dense model's y on {on}: agreement with it",
        }

    def selection_examples(self) -> int | None:
        firsts = [next(iter(tensors_of(self.inputs(batch))), None) for batch in self.selection_batches]
        known = [each.shape[0] for each in firsts if each is not None and each.dim()]
        return sum(known) if len(known) == len(firsts) else None

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._distance(model, batch, 1.0)

    def distilled_loss(
        self, model: nn.Module, teacher: nn.Module, batch: Batch, share: float, temperature: float
    ) -> Tensor:
        """As `loss`, which is distillation already, its share at the temperature: the teacher is the dense model."""
        ours, theirs = self._compared(model, batch)
        if not self._are_classes(theirs, batch):
            return relative_error(ours, theirs)
        plain, warm = (teacher_distance(ours[0], theirs[0], each) for each in (1.0, temperature))
        return (1 - share) * plain + share * warm

    def sampled_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        with self._norms_as_they_are(model), padding_of(model) as padding:
            outputs = self._given(model, batch, padding)
        if self._are_classes(outputs, batch):
            return drawn_cross_entropy(outputs[0])
        return torch.stack([F.mse_loss(each, each.detach() + torch.randn_like(each)) / 2 for each in outputs]).sum()

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> Mapping[str, float]:
        sums, given = AgreementSums(), iter(batches)
        first = next(given)
        if not isinstance(first, Tested) or self.measured_at_the_end is None:
            for batch in chain([first], given):
                self._add(sums, model, batch)
            return sums.means()
        own = self.measured_at_the_end.evaluate(model, self._passed_on(sums, model, chain([first], given)))
        return {**own, **sums.means()}

    def _passed_on(self, sums: AgreementSums, model: nn.Module, batches: Iterable[Tested]) -> Iterator[Batch]:
        for each in batches:
            self._add(sums, model, each)
            yield each.batch

    def _add(self, sums: AgreementSums, model: nn.Module, batch: Batch) -> None:
        ours, theirs = self._compared(model, batch)
        sums.add(ours, theirs, classes=self._are_classes(theirs, batch))

    def _distance(self, model: nn.Module, batch: Batch, temperature: float) -> Tensor:
        ours, theirs = self._compared(model, batch)
        if self._are_classes(theirs, batch):
            return teacher_distance(ours[0], theirs[0], temperature)
        return relative_error(ours, theirs)

    def _compared(self, model: nn.Module, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """The outputs of the model and of the dense one, tensor by tensor, none of them at padding."""
        with self._norms_as_they_are(model), padding_of(model) as padding:
            ours = self._given(model, batch, padding)
        theirs = self._dense_outputs(batch, training=model.training)
        if [each.shape for each in ours] != [each.shape for each in theirs]:
            raise TaskError(
                f"The model gives {_shapes(ours)} where the dense model gives {_shapes(theirs)}; outputs are compared "
                "tensor by tensor. For such outputs write a class derived from rank_search.Task."
            )
        return ours, theirs

    def _dense_outputs(self, batch: Batch, training: bool) -> list[Tensor]:
        """Worked out once where the batches are always the same."""

        @torch.no_grad()
        def computed() -> list[Tensor]:
            mode = as_for_loss(self._dense) if training else in_evaluation(self._dense)
            with mode, padding_of(self._dense) as padding:
                return [each.detach() for each in self._given(self._dense, batch, padding)]

        if training and not self.made_up:
            return computed()
        return self._known.of((self.inputs(batch), self.mask(batch), training), computed)

    def _given(self, model: nn.Module, batch: Batch, padding: Padding) -> list[Tensor]:
        """The model's outputs without those at padding; of outputs with logits these."""
        padding.says(self.mask(batch))
        found = tensors_of(logits_of(forward(model, self.inputs(batch))))
        floating = [padding.without(each) for each in found if each.is_floating_point()]
        if not floating:
            raise TaskError(
                "The network gives no tensor of numbers to compare. For such outputs write a class derived from "
                "rank_search.Task."
            )
        return floating

    def _are_classes(self, outputs: list[Tensor], batch: Batch) -> bool:
        only = outputs[0] if len(outputs) == 1 and outputs[0].dim() > 1 and outputs[0].shape[-1] > 1 else None
        if self.outputs != "auto":
            if self.outputs == "classes" and only is None:
                raise TaskError(
                    f'The network gives {_shapes(outputs)}; logits of classes (outputs = "classes") are one tensor '
                    'with two classes or more in its last dimension. Take outputs = "values".'
                )
            return self.outputs == "classes"
        ids = next(iter(tensors_of(self.inputs(batch))), None)
        of_tokens = ids is not None and not ids.is_floating_point() and not ids.is_complex()
        return only is not None and (only.dim() == 2 or (only.dim() == 3 and of_tokens))

    @contextmanager
    def _norms_as_they_are(self, model: nn.Module) -> Iterator[None]:
        """Batch norms in evaluation mode where batches are made up: they keep the dense model's statistics."""
        moving = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.training and self.made_up]
        for norm in moving:
            norm.training = False
        try:
            yield
        finally:
            for norm in moving:
                norm.training = True


def _shapes(outputs: Iterable[Tensor]) -> str:
    found = ", ".join(str(tuple(each.shape)) for each in outputs)
    return f"outputs of shape {found}" if found else "nothing"
