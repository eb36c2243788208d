"""What every room stands on: amounts, directions, redaction of credentials, streams."""

from __future__ import annotations

from rank_search.basics.amounts import COSTS, FORMS, Amount, to_four_digits
from rank_search.basics.directions import is_higher_better, is_lower_better, is_rate
from rank_search.basics.redact import MASK, has_credentials, is_secret, masked, masked_options, split_credentials
from rank_search.basics.streams import stand_in_for_closed, unbroken

__all__ = [
    "COSTS",
    "FORMS",
    "MASK",
    "Amount",
    "has_credentials",
    "is_higher_better",
    "is_lower_better",
    "is_rate",
    "is_secret",
    "masked",
    "masked_options",
    "split_credentials",
    "stand_in_for_closed",
    "to_four_digits",
    "unbroken",
]
