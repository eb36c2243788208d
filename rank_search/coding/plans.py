"""How the numbers of a group are coded: the smallest of several ways, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from rank_search.coding.binarization import ALONE, Integers, Neighbours, questions, thirds
from rank_search.coding.coding_priors import FAMILIES, Masses, best, bits_under, masses, tabulated
from rank_search.coding.estimate import LearnedModel, adaptive_bits
from rank_search.coding.varint import Wire

CONSTANT: Final = 0
TABLE: Final = 1 + len(FAMILIES)
ADAPTIVE: Final = TABLE + 1
"""Ways to code a group: 0, then one for each family of priors in their order, a table, the adaptive coder."""

LARGEST: Final = (1 << 15) - 1
"""Largest magnitude that is coded: a tensor that needs more steps is kept as it is."""

ADAPTIVE_MOST: Final = 1 << 19
"""The adaptive coder takes microseconds for each number; larger groups take a prior or a table."""

TABLE_MOST: Final = 1 << 12
LEVEL_MOST: Final = 191
_STREAM_BITS: Final = 24.0  # what a group's share in the range coder's last words may be


@dataclass(frozen=True)
class CodingPlan:
    """How one group is coded. Every number is written less `centre`.

    Attributes:
        way: CONSTANT, 1 + the place of a family of priors, TABLE or ADAPTIVE.
        centre: of a constant: the number itself; of a table: its lowest number.
        low, high: of a prior: the lowest and highest number less the centre.
        parameter: of a prior: see `priors`.
        levels: of a table: −8·log₂ of the frequencies, up to a constant.
        neighbours, by_columns, continued: of the adaptive coder: how neighbourhoods are told, whether a matrix is
            read column after column, and whether its contexts are taken over from the adaptive group before.
        bits: what it takes, header included (an estimate; not stored).
    """

    way: int
    centre: int = 0
    low: int = 0
    high: int = 0
    parameter: int = 0
    levels: tuple[int, ...] = ()
    neighbours: Neighbours = ALONE
    by_columns: bool = False
    continued: bool = False
    bits: float = 0.0

    def mass(self) -> Masses:
        """Of a prior or a table: the mass of each number from `low`."""
        if self.way == TABLE:
            return tabulated(self.levels)
        return masses(FAMILIES[self.way - 1], self.parameter, self.low, self.high)

    def scanned(self, matrix: Integers) -> Integers:
        """A matrix in the order in which its numbers are coded, less the centre."""
        return np.ascontiguousarray((matrix.T if self.by_columns else matrix) - np.int32(self.centre))


def choose(matrices: Sequence[Integers], before: LearnedModel | None = None) -> tuple[CodingPlan, LearnedModel | None]:
    """The smallest plan for a group (at least one number), and what the adaptive coder has learned after it.

    Every prior and the table are fitted to the counts, and the adaptive coder's model is run three ways: without
    neighbours, with those in the row, with those in the column. O(n), tens of nanoseconds a number each.
    """
    flat = np.concatenate([matrix.reshape(-1) for matrix in matrices])
    if int(flat.min()) == int(flat.max()):
        return _costed(CodingPlan(CONSTANT, int(flat[0]))), before
    found = [(plan, before) for plan in (*_with_prior(flat), *_with_table(flat))]
    if flat.size <= ADAPTIVE_MOST:
        found.append(_adaptive(flat, matrices, before))
    return min(found, key=lambda each: each[0].bits)


def coded_bits(whole: Mapping[str, Integers | Tensor], groups: Mapping[str, str] | None = None) -> dict[str, float]:
    """Bits that `encode` takes for whole numbers, without coding them, by group.

    Args:
        whole: tensors of whole numbers by name (|v| ≤ 32767): what `Grid.round` gives.
        groups: the group of a tensor, by name; one that is not there, or has the group "", is alone: a group under
            its own name.

    The numbers and what stands in the header for the group's coder are counted; names, shapes and steps are not. The
    adaptive coder's part is right within 0.1 %, the others' within some bits.

    >>> coded_bits({"w": np.zeros((30, 30), np.int32)})
    {'w': 16.0}
    """
    members: dict[str, list[Integers]] = {}
    for name, tensor in whole.items():
        if matrix := as_matrix(tensor):
            members.setdefault((groups or {}).get(name) or name, []).append(matrix[0])
    found, before = {}, None
    for group, matrices in members.items():
        plan, before = choose(matrices, before)
        found[group] = plan.bits
    return found


def as_matrix(whole: Integers | Tensor) -> list[Integers]:
    """The tensor as a matrix of its first mode and all others (a vector as one row); nothing where it is empty."""
    array = np.asarray(whole.detach().cpu().numpy() if isinstance(whole, Tensor) else whole)
    array = array.astype(np.int32)
    return [array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)] if array.size else []


def _costed(plan: CodingPlan, bits: float = 0.0) -> CodingPlan:
    wire = Wire()
    write_plan(wire, plan)
    return replace(plan, bits=bits + 8 * len(wire.written()))


def _centres(flat: Integers) -> list[int]:
    """Zero, and the middle of the numbers."""
    return sorted({0, int(np.partition(flat, flat.size // 2)[flat.size // 2])})


def _with_prior(flat: Integers) -> Iterator[CodingPlan]:
    low, high = int(flat.min()), int(flat.max())
    if high - low > 64 + 8 * flat.size:
        return  # so few numbers, so far apart, are not worth a table of that length in memory
    counts = np.bincount(flat - low, minlength=high - low + 1)
    for centre in _centres(flat):
        for place, family in enumerate(FAMILIES):
            parameter, bits = best(family, counts, low - centre)
            plan = CodingPlan(1 + place, centre, low - centre, high - centre, parameter)
            yield _costed(plan, bits + _STREAM_BITS)


def _with_table(flat: Integers) -> Iterator[CodingPlan]:
    low, high = int(flat.min()), int(flat.max())
    if not high - low < min(TABLE_MOST, flat.size // 4):
        return
    counts = np.bincount(flat - low)
    levels = np.minimum(np.round(8 * np.log2(counts.max() / np.maximum(counts, 0.5))), LEVEL_MOST).astype(np.int64)
    plan = CodingPlan(TABLE, low, high=high - low, levels=tuple(levels.tolist()))
    steps = np.diff(levels, prepend=0)
    side = adaptive_bits(questions(steps, np.zeros_like(steps)), LearnedModel())
    yield _costed(plan, side + bits_under(plan.mass(), counts, np.flatnonzero(counts)) + _STREAM_BITS)


def _adaptive(
    flat: Integers, matrices: Sequence[Integers], before: LearnedModel | None
) -> tuple[CodingPlan, LearnedModel | None]:
    found: list[tuple[CodingPlan, LearnedModel]] = []
    for centre in _centres(flat):
        plans = [CodingPlan(ADAPTIVE, centre)]
        for by_columns in (False, True) if any(len(matrix) > 1 for matrix in matrices) else (False,):
            plan = CodingPlan(ADAPTIVE, centre, by_columns=by_columns)
            plans.append(replace(plan, neighbours=thirds([plan.scanned(matrix) for matrix in matrices])))
        found += [_run(plan, matrices, LearnedModel()) for plan in plans]
    plan, learned = min(found, key=lambda each: each[0].bits)
    if before is not None:
        again = _run(replace(plan, continued=True), matrices, before.taken_over())
        plan, learned = min((plan, learned), again, key=lambda each: each[0].bits)
    return plan, learned


def _run(plan: CodingPlan, matrices: Sequence[Integers], learned: LearnedModel) -> tuple[CodingPlan, LearnedModel]:
    scans = [plan.scanned(matrix) for matrix in matrices]
    numbers = np.concatenate([scan.reshape(-1) for scan in scans]).astype(np.int64)
    kinds = np.concatenate([plan.neighbours.kinds(scan) for scan in scans])
    return _costed(plan, adaptive_bits(questions(numbers, kinds), learned)), learned


# ---- in the header ---------------------------------------------------------------------------------------


def write_plan(wire: Wire, plan: CodingPlan) -> None:
    """What a reader must know; the levels of tables go elsewhere."""
    options = (plan.neighbours != ALONE) + 2 * plan.by_columns + 4 * plan.continued
    wire.put(plan.way + 8 * options)
    wire.put_signed(plan.centre)
    if plan.way == ADAPTIVE and plan.neighbours != ALONE:
        wire.put(plan.neighbours.second)
        wire.put(plan.neighbours.third)
    elif plan.way == TABLE:
        wire.put(plan.high)
    elif CONSTANT < plan.way < TABLE:
        for number in (plan.low, plan.high):
            wire.put_signed(number)
        wire.put(plan.parameter)


def read_plan(wire: Wire) -> CodingPlan:
    """A plan whose numbers are within their bounds; a table's levels are still to come.

    Raises:
        ValueError: they are not.
    """
    options, way = divmod(wire.get(), 8)
    plan = CodingPlan(
        way, wire.get_signed(-LARGEST, LARGEST), by_columns=bool(options & 2), continued=bool(options & 4)
    )
    if way > ADAPTIVE or options > 7:
        raise ValueError(f"a group is coded in way {way} with options {options}")
    if way == ADAPTIVE:
        bounds = [wire.get(1 << 18) for _ in range(2 * (options & 1))]
        return replace(plan, neighbours=Neighbours(0, *bounds)) if bounds else plan
    if way == TABLE:
        return replace(plan, high=wire.get(TABLE_MOST - 1))
    if way == CONSTANT:
        return plan
    low, high = (wire.get_signed(-2 * LARGEST, 2 * LARGEST) for _ in range(2))
    if low > high:
        raise ValueError(f"a prior reaches from {low} to {high}")
    return replace(plan, low=low, high=high, parameter=wire.get(32 * 40 - 1))


def read_levels(steps: Integers) -> tuple[int, ...]:
    """The levels of a table from their differences.

    Raises:
        ValueError: they are out of bounds.
    """
    levels = np.cumsum(steps.astype(np.int64))
    if levels.size and not 0 <= int(levels.min()) <= int(levels.max()) <= LEVEL_MOST:
        raise ValueError("a table of frequencies is out of bounds")
    return tuple(levels.tolist())


def constant(value: int, shape: tuple[int, int]) -> Integers:
    """A matrix of one number."""
    return np.full(shape, value, dtype=np.int32)


def as_tensor(matrix: Integers, shape: tuple[int, ...]) -> Tensor:
    """The tensor that `as_matrix` was given."""
    return torch.from_numpy(np.ascontiguousarray(matrix)).reshape(shape)
