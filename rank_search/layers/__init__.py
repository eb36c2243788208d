"""What can be factorized, and how: layers, the plugin contract, costs, and the factorized model.

The room is a function, too: `rank_search.layers(model, example)`, see `rank_search.layers.made_of.layers`.
"""

from __future__ import annotations

from rank_search.basics import make_callable
from rank_search.layers.bases import Bases, Basis, DirectBases, Weighed, by_output, decompose, output_basis
from rank_search.layers.blocks import block_diagonal, by_block
from rank_search.layers.calls import Call, Example, bound, forward, repeated, tensors_of, with_leaves, with_tensors
from rank_search.layers.components import components, owned
from rank_search.layers.copies import copied, copied_to, shared, tensors_in
from rank_search.layers.costs import Cost, DenseForm, count_nonzeros, count_params, layer_cost, mean_macs
from rank_search.layers.counting import layer_by_layer
from rank_search.layers.cut_form import Kept, adds_up, cut_form
from rank_search.layers.factorization import Axis, Factorization, axes_of, fit_closer, fit_to
from rank_search.layers.fused import channels_last, deployed, fuse, tensor_distance
from rank_search.layers.globs import matches
from rank_search.layers.inventory import Inventory, Skipped, counted_on, run_once, take_inventory
from rank_search.layers.kind import LayerKind
from rank_search.layers.kinds import layer_kinds, weight_in
from rank_search.layers.layer import Layer, Unfolding, input_of
from rank_search.layers.looking import buffers_kept, in_evaluation
from rank_search.layers.made_of import ModelLayer, ModelLayers, layers
from rank_search.layers.metric import (
    cholesky,
    nested_span,
    outer_fit,
    outer_fits,
    output_error,
    root,
    seen_outputs,
    times,
)
from rank_search.layers.opened_models import opened_inventory
from rank_search.layers.opener import Opened, linear_of, openers, viewed
from rank_search.layers.opening import folded_in, groups_of, is_folded, layer_in, opened_for, weight_of
from rank_search.layers.ordinary import require_ordinary
from rank_search.layers.other_inputs import OtherInputs
from rank_search.layers.parts import Parts
from rank_search.layers.plugins import (
    installed,
    load_plugin,
    name_of,
    plugin_code,
    plugin_errors,
    plugin_version,
    resolved,
)
from rank_search.layers.pools import (
    Plugins,
    PooledFactorization,
    fit_together,
    is_pooled,
    pool_memo,
    pool_names,
    share,
    shares_factors,
    taken_together,
    with_pools,
)
from rank_search.layers.replace import factorize, recompose, skeleton
from rank_search.layers.settings import LayersSettings
from rank_search.layers.settled_form import SettledForm, is_same_weight, left_of, settled_form
from rank_search.layers.stored import drop_not_stored, not_stored
from rank_search.layers.tied_layers import tied_in
from rank_search.layers.tied_use import TiedUse

__all__ = [
    "Axis",
    "Bases",
    "Basis",
    "Call",
    "Cost",
    "DenseForm",
    "DirectBases",
    "Example",
    "Factorization",
    "Inventory",
    "Kept",
    "Layer",
    "LayerKind",
    "LayersSettings",
    "ModelLayer",
    "ModelLayers",
    "Opened",
    "OtherInputs",
    "Parts",
    "Plugins",
    "PooledFactorization",
    "SettledForm",
    "Skipped",
    "TiedUse",
    "Unfolding",
    "Weighed",
    "adds_up",
    "axes_of",
    "block_diagonal",
    "bound",
    "buffers_kept",
    "by_block",
    "by_output",
    "channels_last",
    "cholesky",
    "components",
    "copied",
    "copied_to",
    "count_nonzeros",
    "count_params",
    "counted_on",
    "cut_form",
    "decompose",
    "deployed",
    "drop_not_stored",
    "factorize",
    "fit_closer",
    "fit_to",
    "fit_together",
    "folded_in",
    "forward",
    "fuse",
    "groups_of",
    "in_evaluation",
    "input_of",
    "installed",
    "is_folded",
    "is_pooled",
    "is_same_weight",
    "layer_by_layer",
    "layer_cost",
    "layer_in",
    "layer_kinds",
    "layers",
    "left_of",
    "linear_of",
    "load_plugin",
    "matches",
    "mean_macs",
    "name_of",
    "nested_span",
    "not_stored",
    "opened_for",
    "opened_inventory",
    "openers",
    "outer_fit",
    "outer_fits",
    "output_basis",
    "output_error",
    "owned",
    "plugin_code",
    "plugin_errors",
    "plugin_version",
    "pool_memo",
    "pool_names",
    "recompose",
    "repeated",
    "require_ordinary",
    "resolved",
    "root",
    "run_once",
    "seen_outputs",
    "settled_form",
    "share",
    "shared",
    "shares_factors",
    "skeleton",
    "take_inventory",
    "taken_together",
    "tensor_distance",
    "tensors_in",
    "tensors_of",
    "tied_in",
    "times",
    "viewed",
    "weight_in",
    "weight_of",
    "with_leaves",
    "with_pools",
    "with_tensors",
]

make_callable(__name__, "made_of", "layers")
