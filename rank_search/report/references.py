"""Models from elsewhere that a front is compared with: published ones, or whatever else the user names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rank_search.errors import QueryError
from rank_search.fronts.choosing import parse_wish


@dataclass(frozen=True)
class Reference:
    """A named model and what it measures.

    Attributes:
        values: each measurement, and whether the number is in units of the dense model's.
    """

    name: str
    values: Mapping[str, tuple[float, bool]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference, such as `He et al.:error=0.05,macs=0.5*dense`; the name ends at the last colon.

        >>> Reference.parse("ours: 2024:error=0.05, macs=0.5*dense")
        Reference(name='ours: 2024', values={'error': (0.05, False), 'macs': (0.5, True)})

        Raises:
            QueryError: it is not NAME:MEASUREMENT=NUMBER[*dense],…
        """
        name, _, rest = text.rpartition(":")
        try:
            values = parse_wish(rest)
        except QueryError:
            values = {}
        if not name.strip() or not values:
            raise QueryError(
                "A reference is NAME:MEASUREMENT=NUMBER, such as 'ours:error=0.05,macs=0.5*dense', each measurement "
                f"once, with commas between; found {text!r}."
            )
        return cls(name.strip(), values)

    def absolute(self, dense: Mapping[str, float]) -> dict[str, float]:
        """Its measurements in their own units.

        Raises:
            QueryError: one is relative to a measurement that the dense model does not have.
        """
        for name, (_, of_dense) in self.values.items():
            if of_dense and name not in dense:
                raise QueryError(
                    f"A value relative to the dense model needs its measurement; reference {self.name!r} asks for "
                    f"{name!r}, and there are {', '.join(sorted(dense)) or 'none'}. Give {name} as a plain number."
                )
        return {name: value * dense[name] if of_dense else value for name, (value, of_dense) in self.values.items()}
