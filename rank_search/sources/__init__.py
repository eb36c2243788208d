"""Inputs for a network whose data nobody has: synthetic, gaussian, sampled from the model itself, or moments alone."""

from __future__ import annotations

from rank_search.sources.analytic import analytic_moments
from rank_search.sources.gaussian import gaussian_inputs
from rank_search.sources.image_sheet import contact_sheet
from rank_search.sources.input_form import InputForm
from rank_search.sources.kept_inputs import cached, cached_sequences
from rank_search.sources.norm_statistics import stored_norms
from rank_search.sources.sampled_tokens import sampled_sequences
from rank_search.sources.settings import LEAST_IN_BATCH, SynthesisSettings
from rank_search.sources.synthesis import synthetic_inputs

__all__ = [
    "LEAST_IN_BATCH",
    "InputForm",
    "SynthesisSettings",
    "analytic_moments",
    "cached",
    "cached_sequences",
    "contact_sheet",
    "gaussian_inputs",
    "sampled_sequences",
    "stored_norms",
    "synthetic_inputs",
]
