"""The contracts of factorizations and of kinds of layers as executable suites, for authors of plugins.

`check_factorization` needs no test framework; `FactorizationLaws` is the same for pytest. `LayerKindLaws` are those of
kinds, `OpenedLaws` those of what opens modules.
"""

from __future__ import annotations

from rank_search.testing.geometries import GEOMETRIES
from rank_search.testing.kind_laws import LayerKindLaws
from rank_search.testing.opened_laws import OpenedLaws
from rank_search.testing.suite import FactorizationLaws, LawResult, check_factorization, check_law

__all__ = [
    "GEOMETRIES",
    "FactorizationLaws",
    "LawResult",
    "LayerKindLaws",
    "OpenedLaws",
    "check_factorization",
    "check_law",
]
