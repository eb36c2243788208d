"""Models from elsewhere that a front is compared with: published ones, or any others that the user names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from rank_search.basics import Amount, nearest
from rank_search.errors import QueryError
from rank_search.store import parse_wish


@dataclass(frozen=True)
class Reference:
    """A named model and what it measures.

    Attributes:
        values: each measurement, which may be relative to the dense model's.
    """

    name: str
    values: Mapping[str, Amount]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference, such as `He et al.:error=0.05,macs=0.5*dense`; the name ends at the last colon.

        >>> Reference.parse("ours: 2024:error=0.05, macs=0.5*dense").name
        'ours: 2024'

        Raises:
            QueryError: it is not NAME:MEASUREMENT=AMOUNT,…
        """
        name, _, rest = text.rpartition(":")
        try:
            values = parse_wish(rest)
        except QueryError:
            values = {}
        if not name.strip() or not values:
            raise QueryError(
                f"{text!r} is no reference, which is NAME:MEASUREMENT=NUMBER, such as 'ours:error=0.05,macs=20%', "
                "each measurement once, with commas between."
            )
        return cls(name.strip(), values)

    def absolute(self, dense: Mapping[str, float]) -> dict[str, float]:
        """Its measurements in their own units.

        Raises:
            QueryError: one is relative to a measurement that the dense model does not have.
        """
        for name, amount in self.values.items():
            if amount.of_dense and name not in dense:
                raise QueryError(
                    f"Reference {self.name!r} is relative to the dense model's {name!r}, which was not measured; there "
                    f"are {', '.join(sorted(dense)) or 'none'}. Give {name} as a plain number."
                )
        return {name: amount.of(dense, name) for name, amount in self.values.items()}

    def require_known(self, known: Iterable[str]) -> None:
        """See that every name is of something that the study measures.

        Raises:
            QueryError: one is not; it names the nearest that is.
        """
        names = set(known)
        if unknown := [name for name in self.values if name not in names]:
            raise QueryError(
                f"Reference {self.name!r} has {unknown[0]!r}, which the study does not measure"
                f"{nearest(unknown[0], names)}"
            )
