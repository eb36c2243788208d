"""How much each layer's error counts: its share of what the loss would rise by if all layers were lost."""

from __future__ import annotations

from collections.abc import Mapping

from rank_search.layers import Bases
from rank_search.options.fits import rounded


def loss_shares(bases: Mapping[str, Bases]) -> dict[str, float]:
    """tr(G·W·C·Wᵀ) of each layer, relative to the mean over the layers; only of those whose gradients are known.

    Where no gradients are known, or all that is known is zero, nothing: then each layer counts the same. A layer of
    several uses, whose error is the sum of their relative ones, counts as often as it is used.
    """
    known = {name: each.weighed for name, each in bases.items() if each.weighed is not None}
    uses = {name: float(round(each.total)) for name, each in known.items() if each.half.dim() == 1}
    totals = {name: each.total for name, each in known.items() if name not in uses}
    mean = sum(totals.values()) / max(1, len(totals))
    return uses | ({name: rounded(total / mean) for name, total in totals.items()} if mean > 0 else {})
