"""What changes from step to step of a training: shares of the learning rates and of the penalties."""

from __future__ import annotations

import math
from typing import Final

from rank_search.training.settings import TrainingSettings

_ONE_CYCLE_WARMUP: Final = 0.3  # of the training, as in PyTorch's OneCycleLR (pct_start)
_SETTLING: Final = 0.25  # of the training; with a cosine, learning rates are down to 15 % when it begins
_LOWEST: Final = {"cosine": 0.0, "one-cycle": 1e-4}


def rate_factor(settings: TrainingSettings, step: int, total: int) -> float:
    """The share of the learning rates in this step.

    Symbols: t = `step`, from 0 to T − 1, T = `total`; w the warm-up's share. While t < wT, the warm-up is linear:
    (t + 1)/(wT), at most 1, or for one-cycle 1/25 + 24t/(25wT). After it the share falls like half a cosine, from 1
    to 0 (cosine; Loshchilov & Hutter, "SGDR", 2017, without restarts) or to 10⁻⁴ (one-cycle; Smith & Topin,
    "Super-Convergence", 2018), which it would reach in step T; or it stays 1 (constant). One-cycle leaves momenta
    as they are. O(1).

    >>> [rate_factor(TrainingSettings(schedule="cosine"), step, 4) for step in (0, 2)]
    [1.0, 0.5]
    """
    rise = _warmup(settings) * total
    if step < rise:
        return 0.04 + 0.96 * step / rise if settings.schedule == "one-cycle" else min(1.0, (step + 1) / rise)
    if settings.schedule == "constant":
        return 1.0
    low = _LOWEST[settings.schedule]
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def _warmup(settings: TrainingSettings) -> float:
    if settings.warmup is not None:
        return settings.warmup
    return _ONE_CYCLE_WARMUP if settings.schedule == "one-cycle" else 0.0


def relaxed(settings: TrainingSettings, step: int, total: int) -> float:
    """The share of the orthogonality penalty in this step: early 1, then on a line that reaches 0 in step `total`.

    Orthogonality first, freedom later: Bansal, Chen, Wang, "Can We Gain More from Orthogonality Regularizations in
    Training Deep CNNs?" (NeurIPS 2018), where it falls in stairs.

    >>> [relaxed(TrainingSettings(orthogonality_decay=0.5), step, 4) for step in range(4)]
    [1.0, 1.0, 1.0, 0.5]
    """
    start = settings.orthogonality_decay * total
    return 1.0 if step <= start else (total - step) / (total - start)


def warmed_up(settings: TrainingSettings, step: int, total: int) -> float:
    """The share of the entropy penalty in this step: on a line to 1, which it reaches after the warm-up; 1 without one.

    >>> [warmed_up(TrainingSettings(entropy_warmup=0.5), step, 4) for step in range(3)]
    [0.5, 1.0, 1.0]
    """
    rise = settings.entropy_warmup * total
    return min(1.0, (step + 1) / rise) if rise > 0 else 1.0


def steps_are_final(step: int, total: int) -> bool:
    """Whether the steps of the entropy penalty are learned no more, so that weights settle on what will be stored.

    >>> [steps_are_final(step, 4) for step in range(4)]
    [False, False, False, True]
    """
    return step >= total - _SETTLING * total
