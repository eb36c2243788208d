"""What every room stands on: amounts, directions, how numbers and charts look, redaction of credentials, streams."""

from __future__ import annotations

from rank_search.basics.amounts import COSTS, FORMS, Amount, to_four_digits
from rank_search.basics.chart_style import LOOK, PALETTE, is_logarithmic
from rank_search.basics.directions import is_higher_better, is_lower_better, is_rate
from rank_search.basics.number_formats import cell, clock, number, plus_minus, ratio, short_number
from rank_search.basics.redact import MASK, has_credentials, is_secret, masked, masked_options
from rank_search.basics.streams import stand_in_for_closed, unbroken

__all__ = [
    "COSTS",
    "FORMS",
    "LOOK",
    "MASK",
    "PALETTE",
    "Amount",
    "cell",
    "clock",
    "has_credentials",
    "is_higher_better",
    "is_logarithmic",
    "is_lower_better",
    "is_rate",
    "is_secret",
    "masked",
    "masked_options",
    "number",
    "plus_minus",
    "ratio",
    "short_number",
    "stand_in_for_closed",
    "to_four_digits",
    "unbroken",
]
