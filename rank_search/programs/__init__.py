"""Graphs of operators as data: which may be named, how they are walked, and a network from an exported program."""

from __future__ import annotations

from rank_search.programs.conditions import Condition, condition_of
from rank_search.programs.network import example_of_program, read_program, takes_any_batch
from rank_search.programs.operators import gives_nothing, is_allowed, name_of, operator_named
from rank_search.programs.sizes import BATCH, Sizes, sizes_in
from rank_search.programs.steps import (
    CONSTANTS,
    Ref,
    Step,
    arranged,
    check_order,
    filled,
    in_order,
    run,
    with_last_uses,
)

__all__ = [
    "BATCH",
    "CONSTANTS",
    "Condition",
    "Ref",
    "Sizes",
    "Step",
    "arranged",
    "check_order",
    "condition_of",
    "example_of_program",
    "filled",
    "gives_nothing",
    "in_order",
    "is_allowed",
    "name_of",
    "operator_named",
    "read_program",
    "run",
    "sizes_in",
    "takes_any_batch",
    "with_last_uses",
]
