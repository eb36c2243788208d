"""Expected improvement of a front's hypervolume, for any number of objectives."""

from __future__ import annotations

import numpy as np

from rank_search.basics import Float
from rank_search.options import Array


def directions(rng: np.random.Generator, count: int, objectives: int) -> Float[Array, "{count} {objectives}"]:
    """Unit vectors with positive entries, evenly distributed over the orthant.

    >>> drawn = directions(np.random.default_rng(0), 5, 3)
    >>> bool((drawn > 0).all()), np.linalg.norm(drawn, axis=1).round(6).tolist()
    (True, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    drawn = np.abs(rng.standard_normal((count, objectives))) + 1e-9
    unit: Array = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def lengths(gains: Float[Array, "n m"], toward: Float[Array, "d m"]) -> Float[Array, "n d"]:
    """How far the box below a gain vector reaches in each direction, to the power of the number of objectives.

    Symbols: u (n × m) gains, 0 at the reference point, 1 at the ideal; w (d × m) unit directions. The hypervolume of a
    set is c_m·E_w[max over u of min over k of max(0, u_k/w_k)^m] (Zhang and Golovin, "Random hypervolume scalarizations
    for provable multi-objective black box optimization", 2020): what is returned is the inner min, n × d. A vector with
    a gain that is not positive has length 0.

    >>> lengths(np.array([[0.5, 0.5]]), np.array([[0.6, 0.8]])).round(4).tolist()
    [[0.3906]]
    """
    gains = np.maximum(gains, 0.0)
    shortest = np.full((len(gains), len(toward)), np.inf)
    for objective in range(gains.shape[1]):
        np.minimum(shortest, gains[:, objective, None] / toward[None, :, objective], out=shortest)
    powered: Array = shortest ** gains.shape[1]
    return powered


def expected_improvement(
    samples: Float[Array, "s n m"], front: Float[Array, "k m"], toward: Float[Array, "d m"]
) -> Float[Array, " n"]:
    """How much each candidate adds to the hypervolume on average, up to one constant factor.

    Args:
        samples: s × n × m, the gains of n candidates in s draws.
        front: gains of what is known, k × m; k may be 0.
        toward: see `directions`.

    Complexity: O((s·n + k)·d·m).

    >>> samples = np.array([[[0.5, 0.5], [1.0, 1.0], [0.2, -1.0]]])
    >>> expected_improvement(samples, np.array([[0.5, 0.5]]), np.array([[0.6, 0.8]])).round(4).tolist()
    [0.0, 1.1719, 0.0]
    """
    known = lengths(front, toward).max(axis=0, initial=0.0)  # d
    added = [np.maximum(lengths(each, toward) - known, 0.0).mean(axis=1) for each in samples]
    mean: Array = np.mean(added, axis=0)
    return mean
