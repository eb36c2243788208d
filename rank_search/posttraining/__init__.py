"""Packing a trained network as it is: curvature-weighted rounding with compensation, no training, no labels."""

from rank_search.posttraining.inputs import task_inputs
from rank_search.posttraining.pack import SLOPE, pack, pack_model
from rank_search.posttraining.press import PackedLayer, PackedModel

__all__ = ["SLOPE", "PackedLayer", "PackedModel", "pack", "pack_model", "task_inputs"]
