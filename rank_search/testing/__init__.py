"""The contract of factorizations as an executable suite, for authors of plugins.

`check_factorization` needs no test framework; `FactorizationLaws` is the same for pytest.
"""

from __future__ import annotations

from rank_search.testing.geometries import GEOMETRIES
from rank_search.testing.suite import FactorizationLaws, LawResult, check_factorization, check_law

__all__ = [
    "GEOMETRIES",
    "FactorizationLaws",
    "LawResult",
    "check_factorization",
    "check_law",
]
