"""How weights become whole numbers: grids, entropy models, rounding; a trained network packed as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.quantization.batchnorm import (
        batch_statistics,
        canonize,
        learning_norms,
        reestimate_batchnorm,
        reestimate_on,
    )
    from rank_search.quantization.inputs import task_inputs
    from rank_search.quantization.outputs import Feed
    from rank_search.quantization.post_training import PostTrainingQuantizer, RoundedModel
    from rank_search.quantization.quant_specs import component_modes, latents, weight_count
    from rank_search.quantization.quantizer import Quantizer
    from rank_search.quantization.settings import CodingSettings, RoundingKind

_HOMES: Final = {
    "CodingSettings": "settings",
    "Feed": "outputs",
    "PostTrainingQuantizer": "post_training",
    "Quantizer": "quantizer",
    "RoundedModel": "post_training",
    "RoundingKind": "settings",
    "batch_statistics": "batchnorm",
    "canonize": "batchnorm",
    "component_modes": "quant_specs",
    "latents": "quant_specs",
    "learning_norms": "batchnorm",
    "reestimate_batchnorm": "batchnorm",
    "reestimate_on": "batchnorm",
    "task_inputs": "inputs",
    "weight_count": "quant_specs",
}

__all__ = [
    "CodingSettings",
    "Feed",
    "PostTrainingQuantizer",
    "Quantizer",
    "RoundedModel",
    "RoundingKind",
    "batch_statistics",
    "canonize",
    "component_modes",
    "latents",
    "learning_norms",
    "reestimate_batchnorm",
    "reestimate_on",
    "task_inputs",
    "weight_count",
]

__getattr__ = lazy_door(__name__, _HOMES)
