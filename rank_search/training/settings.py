"""The `[training]` and `[overparameterized]` tables of a study file."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rank_search.training.forward_precision import Precision

OrthogonalityKind = Literal["so", "dso", "mc", "srip"]


_FEW: Final = 16  # batches: from 8 on the error of ResNet-20 is that of a whole pass to 0.1 points
_LONG: Final = 10.0  # epochs beside which one more pass, forward only, is a thirtieth of the work


class TrainingSettings(BaseModel):
    """How each trial fine-tunes the factorized model.

    Under the sparsity penalty (`[search] sparsity`) the components of factorizations lose norm in the first three
    quarters of the training, with the learning rate; in the last quarter those that are zero stay zero, and the others
    recover.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="Passes over the training data; fractions are allowed, 0 = none.",
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="AdamW, or SGD with Nesterov momentum.")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of the weights, at its highest.")
    schedule: Literal["cosine", "one-cycle", "constant"] = Field(
        default="cosine",
        description="`cosine` lets every learning rate fall to zero at the last step. `one-cycle` lets it rise from a "
        "25th, and then fall like a cosine to a 10,000th.",
    )
    warmup: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share of the training during which every learning rate rises linearly; none: 0.3 for `one-cycle`, "
        "0 for the others.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD; AdamW does not read it.")
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Of weights of two or more dimensions (AdamW: decoupled; SGD: L2). Frames under an "
        "orthogonality penalty and everything under the entropy penalty are never decayed.",
    )
    weight_decay_on: Literal["factors", "product"] = Field(
        default="factors",
        description="What is decayed of a factorized layer. `product`: half the decay times the squared Frobenius "
        "norm of the weight that its factors make is added to the loss, under either optimizer and also under an "
        "orthogonality penalty; its factors are not decayed.",
    )
    gradient_clip: float = Field(
        default=5.0, gt=0, description="Largest norm of the gradient of all weights together; `inf` = no limit."
    )
    precision: Precision = Field(
        default="float32",
        description="Of the forwards of a training and of their gradients. `bfloat16`: matrix products and "
        "convolutions are computed in 16 bits (PyTorch's autocast), at about twice the speed on hardware that has "
        "them; parameters, losses, penalties and steps of the optimizer stay as they are. What is measured and "
        "exported is computed in the parameters' own type.",
    )
    average: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Decay per step of a moving average of the weights, such as 0.999; the averaged weights are what "
        "is measured, after batch norms have taken their statistics again; 0 = off, the last weights. Under the "
        "entropy penalty the averaged weights are rounded, to the last steps.",
    )
    distillation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the loss that is the distance to the dense model's outputs, in place of the task's own "
        "loss; 0 = off. Needs a task that says how: `Supervised` does, for classes in the last dimension.",
    )
    distillation_temperature: float = Field(
        default=4.0,
        gt=0,
        allow_inf_nan=False,
        description="Both models' outputs are divided by this before they are compared: the higher, the more the "
        "unlikely classes count.",
    )
    batchnorm_batches: int | None = Field(
        default=None,
        ge=0,
        description="Batches of training data from which batch norms take their statistics after weights have "
        "changed; more than there are = a whole pass, 0 = never. None = 16, and a whole pass where trials train for 10 "
        "epochs or more, as `confirm` does: then it hardly costs. Norms that training leaves alone (they stay in "
        "evaluation mode, have momentum 0, or take no gradient while others do) keep their statistics.",
    )
    ordered: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the steps that draw a rank of one layer and train without the components after it, so "
        "that the model can be cut there (Maestro, Horváth et al. 2024, arXiv:2308.14929; there all steps are so); 0 = "
        "off. For `[search] row`. With `[search] sparsity` the tails of components lose norm, and the last ones go "
        "first.",
    )
    orthogonality_penalty: OrthogonalityKind = Field(
        default="so",
        description="`so`: squared Frobenius norm of QᵀQ − I, over r². `dso`: the same of QQᵀ − I added; pulls exactly "
        "twice as hard as `so`. `mc`: the largest entry of QᵀQ − I. `srip`: its spectral norm.",
    )
    orthogonality_decay: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="Share of the training after which the strength of the orthogonality penalty falls, linearly, to "
        "zero at the end; 1 = it stays.",
    )
    entropy_start_bits: float = Field(
        default=4.0,
        ge=1,
        le=16,
        description="Bits per weight at which the entropy penalty starts: sets the first step of every tensor "
        "from the spread of its weights.",
    )
    entropy_learning_rate: float = Field(
        default=3e-2,
        gt=0,
        allow_inf_nan=False,
        description="Of the logarithms of steps and prior scales (Adam). In the last quarter of the training the steps "
        "stay what the file will have.",
    )
    entropy_warmup: float = Field(
        default=0.2, ge=0, le=1, description="Share of the training during which the entropy penalty grows from 0."
    )

    @property
    def norm_batches(self) -> int | None:
        """Of how many batches batch norms take their statistics; None: of a whole pass."""
        if self.batchnorm_batches is not None:
            return self.batchnorm_batches
        return None if self.epochs >= _LONG else _FEW


class OverparameterizedSettings(BaseModel):
    """How the network is trained before the search, with `[study] method = "overparameterized"`; read only then.

    Every layer that is searched is written as factors of full rank, the network is trained so with a penalty that keeps
    the frames orthogonal, and is put together again as an ordinary dense network. In the manner of He, Jiang and Wu
    (2024, arXiv:2408.16289), whose coefficients and schedule are not known to us. The search begins from that network:
    its spectra, VBMF ranks and factors are what trials start with, and a point that leaves all layers dense stands for
    it. Errors and ratios are still compared with your own network. All that is not said here is as in `[training]`.

    The network is kept in the cache folder, and found there by the weights, the settings, the seed, the files of the
    task's code and the versions of rank-search and PyTorch, not by the data: after a change of the data alone, or of
    the code of a task that was made in Python, empty the folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float = Field(default=10.0, ge=0, allow_inf_nan=False, description="Passes over the training data.")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="Of the weights, at the start.")
    orthogonality: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="Strength of the orthogonality penalty on the frames, of the kind that `[training]` names.",
    )
    ordered: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the steps that draw a rank of one layer and train without the components after it, so "
        "that the first ones carry the most: the ordered low-rank training of Maestro (Horváth et al. 2024, "
        "arXiv:2308.14929), where it is 1. 0 = off.",
    )
    factorization: str = Field(
        default="",
        description="One of `[layers] factorizations`, whose full rank is the whole weight (`cp` has none) and stays "
        "so in training (that of `soft-rank` and `soft-threshold` does not). Where it does not apply, and by default: "
        "the first that does.",
    )
