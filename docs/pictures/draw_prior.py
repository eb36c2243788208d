"""Why frames are kept orthonormal: then the bits of factors are known before anything is coded. As an SVG.

python docs/pictures/draw_prior.py docs/pictures/prior.svg

One product of rank 32 (256 × 512), in three pairs of factors: as any change of coordinates may leave it, balanced with
one step for each factor, and balanced with a step for each component, as orthonormal frames allow. For an error that
rounding may add, the bits an ideal coder takes: under the best Laplace distribution of each factor, and in the third
case under the normal distributions that follow from the singular values. The line is `coded_bits`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from closed_form_rate import coded_bits, coded_distortion, component_steps
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import erf

from rank_search.priors.spectrum import Spectrum

Matrix = NDArray[np.float64]
Pair = tuple[Matrix, Matrix]

RANK, ROWS, COLUMNS = 32, 256, 512
ERRORS: Final = np.geomspace(0.003, 0.2, 9)
SCALES: Final = np.geomspace(0.05, 200, 240)
SPECTRA: Final[Mapping[str, Callable[[Matrix], Matrix]]] = {
    "singular values like $i^{-0.7}$": lambda i: i**-0.7,
    "like $i^{-1.2}$": lambda i: i**-1.2,
}
STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "any coordinates, one step a factor": {"color": "#d1495b", "marker": "v"},
    "balanced, one step a factor": {"color": "#d98e04", "marker": "^"},
    "orthonormal frames, a step a component": {"color": "#0b6fb8", "marker": "o"},
}


def main(target: str) -> None:
    mpl.rcParams.update(
        {"svg.hashsalt": "prior", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    figure, axes = plt.subplots(1, len(SPECTRA), figsize=(9.2, 4.0), layout="constrained", sharey=True)
    for place, (title, decay) in zip(axes, SPECTRA.items(), strict=True):
        draw(place, decay(np.arange(1.0, RANK + 1)))
        place.set_title(title, fontsize=10)
    axes[0].set_ylabel("bits an entry")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2, fontsize=9)
    figure.savefig(target, metadata={"Date": None})


def draw(axes: Axes, values: Matrix) -> None:
    rng = np.random.default_rng(0)
    spectrum = Spectrum(values, ROWS, COLUMNS)
    entries = RANK * (ROWS + COLUMNS)
    U, V = (np.linalg.qr(rng.standard_normal((size, RANK)))[0] for size in (ROWS, COLUMNS))
    balanced = U * np.sqrt(values), V * np.sqrt(values)
    mix = rng.standard_normal((RANK, RANK))
    mixed = balanced[0] @ mix, balanced[1] @ np.linalg.inv(mix).T
    steps = [math.sqrt(12 * error * spectrum.energy / entries) for error in ERRORS]
    assert math.isclose(coded_distortion(spectrum, RANK, steps[0]), ERRORS[0] * spectrum.energy)
    found = {
        "any coordinates, one step a factor": [laplace(mixed, step) for step in steps],
        "balanced, one step a factor": [laplace(balanced, step) for step in steps],
        "orthonormal frames, a step a component": [normal((U, V), spectrum, step) for step in steps],
    }
    model = [coded_bits(spectrum, RANK, step) / entries for step in steps]
    axes.plot(ERRORS, model, color="0.2", linewidth=1.2, label="closed form")
    for name, bits in found.items():
        axes.plot(ERRORS, np.array(bits) / entries, linestyle="none", markersize=5.5, label=name, **STYLES[name])
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("relative squared error that rounding adds")
    axes.grid(alpha=0.25)


def laplace(pair: Pair, step: float) -> float:
    """Bits of both factors in one step each, of equal shares in the error of the product, which is that of `step`."""
    error = RANK * (ROWS + COLUMNS) * step**2 / 12
    bits = 0.0
    for factor, other in (pair, pair[::-1]):
        own = math.sqrt(12 * error / 2 / (len(factor) * float(np.square(other).sum())))
        whole = np.abs(np.round(factor / own))
        zeros, total = int((whole == 0).sum()), float(whole.sum())
        bits += min(_laplace_bits(zeros, whole.size - zeros, total, scale) for scale in SCALES)
    return bits


def _laplace_bits(zeros: int, others: int, total: float, scale: float) -> float:
    """−log2 of the mass of the given numbers of zeros and others, whose magnitudes add up to `total`."""
    side = math.log(math.sinh(0.5 / scale)) if scale > 0.01 else 0.5 / scale
    return -(zeros * math.log(-math.expm1(-0.5 / scale)) + others * side - total / scale) / math.log(2)


def normal(frames: Pair, spectrum: Spectrum, step: float) -> float:
    """Bits of orthonormal frames in a step for each component, under the distributions that the spectrum gives."""
    steps = component_steps(spectrum, RANK, step)
    bits = 0.0
    for frame in frames:
        whole = np.round(frame / steps)
        scale = math.sqrt(2 / len(frame)) / steps
        mass = 0.5 * (erf((np.abs(whole) + 0.5) / scale) - erf((np.abs(whole) - 0.5) / scale))
        bits -= float(np.log2(np.maximum(mass, 2.0**-24)).sum())
    return bits


if __name__ == "__main__":
    main(*sys.argv[1:])
