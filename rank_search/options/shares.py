"""How much each layer's error counts: its share of what the loss would rise by if all layers were lost."""

from __future__ import annotations

from collections.abc import Mapping

from rank_search.layers import Bases
from rank_search.options.fits import rounded


def loss_shares(bases: Mapping[str, Bases]) -> dict[str, float]:
    """tr(G·W·C·Wᵀ) of each layer, relative to the mean over the layers; only of those whose gradients are known.

    Where no gradients are known, or all that is known is zero, nothing: then each layer counts the same.
    """
    totals = {name: each.weighed.total for name, each in bases.items() if each.weighed is not None}
    mean = sum(totals.values()) / max(1, len(totals))
    return {name: rounded(total / mean) for name, total in totals.items()} if mean > 0 else {}
