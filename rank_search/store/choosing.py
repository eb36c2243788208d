"""What a member of a front is wished to measure, as text."""

from __future__ import annotations

import math

from rank_search.basics import FORMS, Amount
from rank_search.errors import QueryError


def parse_wish(text: str) -> dict[str, Amount]:
    """Measurements and the amounts wished for; see `Amount.parse`.

    >>> {name: str(amount) for name, amount in parse_wish("error=dense + 0.01, macs=0.5*dense").items()}
    {'error': 'dense + 0.01', 'macs': '0.5 * dense'}

    Raises:
        QueryError: the text is not NAME=AMOUNT, with commas between, each name once.
    """
    found: dict[str, Amount] = {}
    for part in text.split(","):
        name, _, value = (each.strip() for each in part.partition("="))
        amount = _amount(value, name)
        if not name or set(name) & set("<>!") or amount is None or name in found:
            raise QueryError(
                f"{text!r} cannot be read as values: write NAME=NUMBER, each name once, with commas between, such as "
                f"'error=0.05,macs=0.5*dense'. A number is {FORMS}."
            )
        found[name] = amount
    return found


def _amount(text: str, name: str) -> Amount | None:
    try:
        amount = Amount.parse(text, name)
    except QueryError:
        return None
    return amount if math.isfinite(amount.number) else None
