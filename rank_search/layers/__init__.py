"""What can be factorized, and how: layers, the plugin contract, costs, and the factorized model."""

from rank_search.layers.bases import Bases, Basis, DirectBases, decompose
from rank_search.layers.costs import Cost, Example, count_macs, count_params, forward, layer_cost
from rank_search.layers.factorization import Axis, Factorization
from rank_search.layers.inventory import Inventory, Skipped, run_once, take_inventory
from rank_search.layers.layer import Layer, Unfolding
from rank_search.layers.plugins import installed, load_plugin
from rank_search.layers.replace import Plugins, check_point, factorize, skeleton

__all__ = [
    "Axis",
    "Bases",
    "Basis",
    "Cost",
    "DirectBases",
    "Example",
    "Factorization",
    "Inventory",
    "Layer",
    "Plugins",
    "Skipped",
    "Unfolding",
    "check_point",
    "count_macs",
    "count_params",
    "decompose",
    "factorize",
    "forward",
    "installed",
    "layer_cost",
    "load_plugin",
    "run_once",
    "skeleton",
    "take_inventory",
]
