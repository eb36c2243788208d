"""What can be factorized, and how: layers, the plugin contract, costs, and the factorized model."""

from rank_search.layers.bases import Bases, Basis, DirectBases, by_output, decompose, output_basis
from rank_search.layers.costs import Cost, DenseForm, Example, count_macs, count_params, forward, layer_cost
from rank_search.layers.factorization import Axis, Factorization
from rank_search.layers.fused import channels_last, deployed, fuse
from rank_search.layers.inventory import Inventory, Skipped, run_once, take_inventory
from rank_search.layers.layer import Layer, Unfolding
from rank_search.layers.metric import (
    cholesky,
    fit_closer,
    nested_span,
    outer_fit,
    outer_fits,
    output_error,
    root,
    seen_outputs,
)
from rank_search.layers.plugins import installed, load_plugin
from rank_search.layers.replace import Plugins, check_point, factorize, recompose, skeleton

__all__ = [
    "Axis",
    "Bases",
    "Basis",
    "Cost",
    "DenseForm",
    "DirectBases",
    "Example",
    "Factorization",
    "Inventory",
    "Layer",
    "Plugins",
    "Skipped",
    "Unfolding",
    "by_output",
    "channels_last",
    "check_point",
    "cholesky",
    "count_macs",
    "count_params",
    "decompose",
    "deployed",
    "factorize",
    "fit_closer",
    "forward",
    "fuse",
    "installed",
    "layer_cost",
    "load_plugin",
    "nested_span",
    "outer_fit",
    "outer_fits",
    "output_basis",
    "output_error",
    "recompose",
    "root",
    "run_once",
    "seen_outputs",
    "skeleton",
    "take_inventory",
]
