"""Whole numbers as yes-or-no questions, and what an adaptive coder pays for the answers.

A number v is asked about in this order: "is |v| more than 0, 1, 2?" until a no; after three yeses the remainder
x = |v| − 3 goes by its Exp-Golomb code of order 0: "does x + 1 have more than i + 1 binary digits?" for i = 0, 1, …
until a no; then, unless v = 0, "is it negative?", then the digits of x + 1 after the first, highest first.

Each question belongs to a context, which learns how often its answer is yes. The first three have four contexts
each, chosen by 2·|previous number in the row| + |the one before that|: large numbers have large neighbours. The two
highest digits of x + 1 have contexts by the number of digits; lower ones are not worth learning.

As a tree (`TREES`), for −5 with the answers yes, yes, yes, yes, no, yes, 1:

    > 0? ——no——> 0
     | yes
    > 1? ——no——> negative? ——> ±1
     | yes
    > 2? ——no——> negative? ——> ±2
     | yes
    x + 1 of more than 1 digit? ——no——> negative? ——> ±3
     | yes
    more than 2? ——no——> negative? ——> 2nd digit ——> ±4, ±5
     | yes
    more than 3? ——no——> negative? ——> 2nd digit ——> 3rd digit ——> ±6 … ±9
     …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rank_search.basics import Int

Integers = NDArray[np.int32]
_Any = NDArray[np.int64]

FLAGS: Final = 3
"""Questions "more than 0, 1, 2" with contexts by neighbours; more of them cost time and save nothing."""

KINDS: Final = 4
DIGITS: Final = 17
"""Most binary digits that x + 1 may have: |v| < 2¹⁷."""

PREFIX: Final = FLAGS * KINDS
SIGN: Final = PREFIX + DIGITS
SUFFIX: Final = SIGN + 1
CONTEXTS: Final = SUFFIX + 4 * DIGITS
RAW: Final = CONTEXTS
"""Stands in place of a context where both answers are taken as equally likely."""

LADDERS: Final = tuple(
    tuple(level * KINDS + kind if level < FLAGS else PREFIX + level - FLAGS for level in range(FLAGS + DIGITS))
    for kind in range(KINDS)
)
"""For each kind of neighbourhood the contexts of the questions about size, in their order."""

Tree = tuple[int, Any, Any]
"""A question: its context, what is asked after a no, and what after a yes.

Where nothing with a context is left to ask: `RAW`, how many lower digits of x + 1 are still to come, and the number if
these are all zero."""

TOO_LONG: Final = 2 << DIGITS
"""Stands at the end of nothing but yeses, which no writer writes."""


def _size_tree(kind: int, level: int = 0) -> Tree:
    """The questions about size from one level on; after a no those about sign and digits."""
    if level == FLAGS + DIGITS:
        return RAW, 0, TOO_LONG
    return LADDERS[kind][level], _sign_tree(level), _size_tree(kind, level + 1)


def _sign_tree(level: int) -> Tree:
    """What is left to ask after `level` yeses and a no."""
    if level < FLAGS:
        return (SIGN, (RAW, 0, level), (RAW, 0, -level)) if level else (RAW, 0, 0)
    return SIGN, _digit_tree(level - FLAGS, 1), _digit_tree(level - FLAGS, -1)


def _digit_tree(digits: int, sign: int, known: int = 1, depth: int = 0) -> Tree:
    """The questions about those two of the digits of x + 1 after the first that have contexts; `known` is before."""
    left = digits - depth
    if depth == 2 or left == 0:
        return RAW, left, sign * (FLAGS - 1 + (known << left))
    name = SUFFIX + 4 * digits + (2 + known % 2 if depth else 1)
    if_no, if_yes = (_digit_tree(digits, sign, 2 * known + answer, depth + 1) for answer in (0, 1))
    return name, if_no, if_yes


TREES: Final = tuple(_size_tree(kind) for kind in range(KINDS))
"""For each kind of neighbourhood the questions about a number, from the first on."""

FAST: Final = 5
SLOW: Final = 7
"""A context keeps two shares of yes, moved by 2⁻⁵ and 2⁻⁷ of the way to each answer, and takes their mean …"""

FLOOR: Final = 2.0**-12
"""… which never comes closer to 0 or 1 than this …"""

START: Final = 4
"""… and faster at first: the k-th answer moves both by at least 1/(k + 1.5). A context taken over from the group
before begins with k = 4 at most, so that it learns anew, but not from nothing."""


@dataclass(frozen=True)
class Neighbours:
    """How the kind of a neighbourhood s = 2·|previous| + |the one before| is told: by the number of bounds below it.

    Attributes:
        first, second, third: bounds; all `NEVER` means that neighbours are not looked at.
    """

    first: int
    second: int
    third: int

    def kinds(self, matrix: Int[Integers, "rows columns"]) -> Int[_Any, " numbers"]:
        """The kind (0 … 3) of each number of a matrix, row after row; beyond the left end stand zeros."""
        near = _near(matrix)
        found: _Any = np.stack([near > bound for bound in (self.first, self.second, self.third)]).sum(0, dtype=np.int64)
        return found.reshape(-1)


NEVER: Final = 1 << 20
ALONE: Final = Neighbours(NEVER, NEVER, NEVER)


def thirds(matrices: list[Int[Integers, "_rows _columns"]]) -> Neighbours:
    """Bounds that part zero from the rest, and the rest into three equal shares; all 0 where all numbers are.

    >>> thirds([np.array([[1, 2, 3, 4]], dtype=np.int32)])  # 2·|previous| + |the one before| is 0, 2, 5, 8
    Neighbours(first=0, second=2, third=5)
    """
    near = np.concatenate([_near(matrix).reshape(-1) for matrix in matrices])
    if not (near := near[near > 0]).size:
        return Neighbours(0, 0, 0)
    second, third = np.quantile(near, [1 / 3, 2 / 3], method="lower")
    return Neighbours(0, int(second), int(third))


def _near(matrix: Int[Integers, "rows columns"]) -> Int[_Any, "rows columns"]:
    magnitude = np.abs(matrix.astype(np.int64))
    near = np.zeros_like(magnitude)
    near[:, 1:] += 2 * magnitude[:, :-1]
    near[:, 2:] += magnitude[:, :-2]
    return near


@dataclass(frozen=True)
class Question:
    """One question, asked of some of the numbers.

    Attributes:
        rank: its place in the order of questions about one number.
        place: indices of the numbers, rising.
        context, answer: one for each of them.
    """

    rank: int
    place: _Any
    context: _Any
    answer: NDArray[np.bool_]


def questions(numbers: Int[_Any, " n"], kinds: Int[_Any, " n"]) -> Iterator[Question]:
    """All questions about numbers (|v| < 2¹⁷) of these kinds. O(n) for each.

    >>> [each.answer.tolist() for each in questions(np.array([-2, 0]), np.array([0, 0]))]  # > 0, > 1, > 2, negative?
    [[True, False], [True], [False], [True]]
    """
    magnitude = np.abs(numbers)
    long = magnitude >= FLAGS
    tail = np.where(long, magnitude - FLAGS + 1, 1)
    digits = np.frexp(tail.astype(np.float64))[1].astype(np.int64) - 1  # beside the first
    stop = np.where(long, FLAGS + digits, magnitude)
    ladders = np.array(LADDERS)
    place = np.arange(numbers.size)
    for level in range(FLAGS + DIGITS):
        answer = stop[place] > level
        yield Question(level, place, ladders[kinds[place], level], answer)
        place = place[answer]
        if not place.size:
            break
    place = np.flatnonzero(magnitude)
    yield Question(64, place, np.full(place.size, SIGN), numbers[place] < 0)
    place = np.flatnonzero(long)
    for depth in range(DIGITS):
        place = place[digits[place] > depth]
        if not place.size:
            break
        answer = (tail[place] >> (digits[place] - 1 - depth)) & 1 > 0
        yield Question(65 + depth, place, _suffix(digits[place], tail[place], depth), answer)


def _suffix(digits: _Any, tail: _Any, depth: int) -> _Any:
    """Contexts of a digit: the highest by their number alone, the next also by the highest."""
    if depth > 1:
        return np.full(digits.size, RAW)
    node = 1 if depth == 0 else 2 + ((tail >> (digits - 1)) & 1)
    found: _Any = SUFFIX + 4 * digits + node
    return found
