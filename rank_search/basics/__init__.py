"""What every room stands on: amounts, directions, how numbers and charts look, redaction of credentials, streams."""

from __future__ import annotations

from rank_search.basics.amounts import COSTS, FORMS, Amount, to_four_digits
from rank_search.basics.callable_room import make_callable
from rank_search.basics.chart_style import LOG_SPAN, PALETTE, is_logarithmic
from rank_search.basics.directions import is_higher_better, is_lower_better, is_rate
from rank_search.basics.number_formats import (
    DIGITS,
    UNITS,
    cell,
    clock,
    number,
    percent,
    plus_minus,
    ratio,
    short_number,
)
from rank_search.basics.plain_table import html_table, text_table
from rank_search.basics.redact import MASK, has_credentials, is_secret, masked, masked_options
from rank_search.basics.streams import stand_in_for_closed, unbroken

__all__ = [
    "COSTS",
    "DIGITS",
    "FORMS",
    "LOG_SPAN",
    "MASK",
    "PALETTE",
    "UNITS",
    "Amount",
    "cell",
    "clock",
    "has_credentials",
    "html_table",
    "is_higher_better",
    "is_logarithmic",
    "is_lower_better",
    "is_rate",
    "is_secret",
    "make_callable",
    "masked",
    "masked_options",
    "number",
    "percent",
    "plus_minus",
    "ratio",
    "short_number",
    "stand_in_for_closed",
    "text_table",
    "to_four_digits",
    "unbroken",
]
