"""The two streams of a coded model: the adaptive coder's and the range coder's, written and read group by group.

The adaptive stream begins with the step exponents of all grids, as differences, then the levels of all
tables, each table as differences; each of the two with fresh contexts.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from rank_search.coding.binarization import ALONE, Integers
from rank_search.coding.binary_range_coder import BinaryReader, BinaryWriter, Contexts
from rank_search.coding.coding_priors import RangeReader, RangeWriter
from rank_search.coding.plans import ADAPTIVE, ADAPTIVE_MOST, CONSTANT, TABLE, CodingPlan, choose, constant, read_levels
from rank_search.errors import TrialError

_FURTHEST = 8 * 1080  # step exponents: no float64 is beyond 2^±1080


class Writer:
    """Takes tensors of whole numbers, sorts them by group, and writes them in the order of the groups."""

    def __init__(self) -> None:
        self._groups: dict[str, list[Integers]] = {}
        self._exponents: list[int] = []

    def add(self, group: str, matrix: Integers, exponents: list[int]) -> int:
        """Append a tensor to a group, and return the number of the group."""
        self._exponents += exponents
        self._groups.setdefault(group, []).append(matrix)
        return list(self._groups).index(group)

    def finish(self) -> tuple[list[CodingPlan], int, bytes, bytes]:
        """The plans, a checksum of all whole numbers, and the two streams."""
        if len(self._exponents) > ADAPTIVE_MOST or max(map(abs, self._exponents), default=0) > _FURTHEST:
            raise TrialError(
                f"A grid of {len(self._exponents)} steps has too many, or one out of range: at most {ADAPTIVE_MOST}, "
                "from 2^−1080 to 2^1080. Give a tensor one step, or one for each channel."
            )
        plans, before = list[CodingPlan](), None
        for matrices in self._groups.values():
            plan, before = choose(matrices, before)
            plans.append(plan)
        adaptive, ranged = BinaryWriter(), RangeWriter()
        _write_side(adaptive, _differences(self._exponents))
        tables = [_differences(plan.levels) for plan in plans if plan.way == TABLE]
        _write_side(adaptive, np.concatenate([np.zeros(0, np.int64), *tables]))
        contexts, check = Contexts(), 0
        for plan, matrices in zip(plans, self._groups.values(), strict=True):
            if plan.way == ADAPTIVE:
                contexts = contexts.taken_over() if plan.continued else Contexts()
            for matrix in matrices:
                check = zlib.crc32(matrix.astype("<i4").tobytes(), check)
                _write(plan, matrix, adaptive, ranged, contexts)
        return plans, check, adaptive.finish(), ranged.finish()


def _differences(numbers: Sequence[int]) -> Integers:
    return np.diff(np.array(numbers, dtype=np.int64), prepend=0).astype(np.int32)


def _write_side(writer: BinaryWriter, numbers: Integers) -> None:
    writer.write(numbers.astype(np.int64), np.zeros(numbers.size, np.int64), Contexts())


def _write(plan: CodingPlan, matrix: Integers, adaptive: BinaryWriter, ranged: RangeWriter, contexts: Contexts) -> None:
    scan = plan.scanned(matrix)
    if plan.way == ADAPTIVE:
        adaptive.write(scan.reshape(-1).astype(np.int64), plan.neighbours.kinds(scan), contexts)
    elif plan.way != CONSTANT:
        ranged.write(scan.reshape(-1), plan.low, plan.mass())


class Reader:
    """Reads what `Writer` wrote: the exponents first, then group after group.

    Its methods raise ValueError (or AssertionError, from the range coder) where the bytes are not what was written.
    """

    def __init__(self, plans: Sequence[CodingPlan], adaptive: bytes, ranged: bytes) -> None:
        self._plans, self._contexts = list(plans), Contexts()
        self._adaptive, self._ranged = BinaryReader(adaptive), RangeReader(ranged)
        self._mass = np.ones(1)

    def exponents(self, sizes: Iterable[int]) -> list[list[int]]:
        """Those of each coded tensor, of which that many are expected; and the levels of the tables are read, too."""
        sizes = [*sizes]
        exponents = np.cumsum(self._side(sum(sizes)).astype(np.int64))
        if exponents.size and int(np.abs(exponents).max()) > _FURTHEST:
            raise ValueError("a step is out of bounds")
        tables = [(place, plan.high + 1) for place, plan in enumerate(self._plans) if plan.way == TABLE]
        steps, start = self._side(sum(size for _, size in tables)), 0
        for place, size in tables:
            self._plans[place] = _with_levels(self._plans[place], steps[start : start + size])
            start += size
        return [part.tolist() for part in np.split(exponents, np.cumsum(sizes)[:-1])] if sizes else []

    def _side(self, count: int) -> Integers:
        _require(count)
        return self._adaptive.read((1, count), ALONE, Contexts()).reshape(-1)

    def begin(self, group: int, count: int) -> None:
        """Make ready for a group of that many numbers."""
        plan = self._plans[group]
        if plan.way == ADAPTIVE:
            _require(count)
            self._contexts = self._contexts.taken_over() if plan.continued else Contexts()
        elif plan.way != CONSTANT:
            self._mass = plan.mass()

    def read(self, group: int, shape: tuple[int, int]) -> Integers:
        """The next tensor of the group, as a matrix."""
        plan = self._plans[group]
        if plan.way == CONSTANT:
            return constant(plan.centre, shape)
        scanned = (shape[1], shape[0]) if plan.by_columns else shape
        if plan.way == ADAPTIVE:
            found = self._adaptive.read(scanned, plan.neighbours, self._contexts)
        else:
            found = self._ranged.read(shape[0] * shape[1], plan.low, self._mass).reshape(scanned)
        return (found.T if plan.by_columns else found) + np.int32(plan.centre)


def _with_levels(plan: CodingPlan, steps: Integers) -> CodingPlan:
    return CodingPlan(plan.way, plan.centre, 0, plan.high, levels=read_levels(steps))


def _require(count: int) -> None:
    if count > ADAPTIVE_MOST:
        raise ValueError(f"{count} numbers are said to be in a stream of at most {ADAPTIVE_MOST}")
