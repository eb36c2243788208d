"""What every room stands on: amounts, directions, how numbers and charts look, redaction of credentials, streams."""

from __future__ import annotations

from rank_search.basics.amounts import COSTS, FORMS, Amount, to_four_digits
from rank_search.basics.array_types import Bool, Float, Int
from rank_search.basics.attributing import attributing
from rank_search.basics.callable_room import make_callable
from rank_search.basics.chart_style import LOOK, PALETTE, is_logarithmic
from rank_search.basics.directions import is_higher_better, is_lower_better, is_rate
from rank_search.basics.lack_of_memory import is_lack_of_memory
from rank_search.basics.lazy_door import lazy_door
from rank_search.basics.leaves import named_leaves
from rank_search.basics.nearest import did_you_mean, nearest
from rank_search.basics.number_formats import cell, clock, number, plus_minus, ratio, short_number
from rank_search.basics.plain_table import html_table, text_table
from rank_search.basics.redact import MASK, has_credentials, is_secret, masked, masked_options, split_credentials
from rank_search.basics.streams import stand_in_for_closed, unbroken
from rank_search.basics.whole_files import PART, publish, replace_whole, sync

__all__ = [
    "COSTS",
    "FORMS",
    "LOOK",
    "MASK",
    "PALETTE",
    "PART",
    "Amount",
    "Bool",
    "Float",
    "Int",
    "attributing",
    "cell",
    "clock",
    "did_you_mean",
    "has_credentials",
    "html_table",
    "is_higher_better",
    "is_lack_of_memory",
    "is_logarithmic",
    "is_lower_better",
    "is_rate",
    "is_secret",
    "lazy_door",
    "make_callable",
    "masked",
    "masked_options",
    "named_leaves",
    "nearest",
    "number",
    "plus_minus",
    "publish",
    "ratio",
    "replace_whole",
    "short_number",
    "split_credentials",
    "stand_in_for_closed",
    "sync",
    "text_table",
    "to_four_digits",
    "unbroken",
]
