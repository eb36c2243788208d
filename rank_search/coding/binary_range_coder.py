"""The adaptive binary range coder: yes-or-no answers to bytes and back, with integers only.

Range coding after Martin (1979) with carries; a context's probability is the mean of a fast and a slow share, as in
DeepCABAC (Wiedemann et al. 2019), with a fast start. All of it is whole-number arithmetic, so every machine agrees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rank_search.coding.binarization import (
    CONTEXTS,
    DIGITS,
    FAST,
    FLAGS,
    FLOOR,
    LADDERS,
    RAW,
    SIGN,
    SLOW,
    START,
    SUFFIX,
    Integers,
    Neighbours,
    questions,
)

ONE: Final = 1 << 24
"""Shares are kept in units of 2⁻²⁴; the mean of two, in units of 2⁻¹⁶, is (fast + slow) >> 9."""

_LOW: Final = int(ONE * FLOOR)
_HIGH: Final = ONE - _LOW
_TOP: Final = 1 << 16  # the interval is kept at least this wide, and below its square


def _speeds(slowest: int, length: int) -> list[int]:
    """Of 2¹⁶, how far a share moves to the k-th answer."""
    return [max((1 << 17) // (2 * k + 3), 1 << (16 - slowest)) for k in range(length)]


_LENGTH: Final = 1 << SLOW  # uses after which nothing gets slower
_FAST: Final = _speeds(FAST, _LENGTH)
_SLOW: Final = _speeds(SLOW, _LENGTH)


@dataclass
class Contexts:
    """What has been learned: two shares of yes for each context, and how often it was used (at most 127)."""

    fast: list[int] = field(default_factory=lambda: [ONE >> 1] * CONTEXTS)
    slow: list[int] = field(default_factory=lambda: [ONE >> 1] * CONTEXTS)
    uses: list[int] = field(default_factory=lambda: [0] * CONTEXTS)

    def taken_over(self) -> Contexts:
        """The same shares, ready to learn anew."""
        return Contexts([*self.fast], [*self.slow], [min(uses, START) for uses in self.uses])


class BinaryWriter:
    """One stream of coded answers."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._low, self._width = 0, _TOP * _TOP

    def write(self, numbers: NDArray[np.int64], kinds: NDArray[np.int64], contexts: Contexts) -> None:
        """Append whole numbers (|v| < 2¹⁷), each with the kind of its neighbourhood; `contexts` learn.

        About a microsecond for each question, of which a number has one to a dozen.
        """
        asked = [*questions(numbers, kinds)]
        order = np.argsort(np.concatenate([128 * each.place + each.rank for each in asked]))
        names = np.concatenate([each.context for each in asked])[order].tolist()
        answers = np.concatenate([each.answer for each in asked])[order].tolist()
        fast, slow, uses, words, low, width = (
            *(contexts.fast, contexts.slow, contexts.uses),
            *(self._words, self._low, self._width),
        )
        for name, answer in zip(names, answers, strict=True):
            if name == RAW:
                part = width >> 1
            else:
                one, two, use = fast[name], slow[name], uses[name]
                part = width * ((one + two) >> 9) >> 16
                if answer:
                    fast[name] = one + ((_HIGH - one) * _FAST[use] >> 16)
                    slow[name] = two + ((_HIGH - two) * _SLOW[use] >> 16)
                else:
                    fast[name] = one - ((one - _LOW) * _FAST[use] >> 16)
                    slow[name] = two - ((two - _LOW) * _SLOW[use] >> 16)
                if use < _LENGTH - 1:
                    uses[name] = use + 1
            if answer:
                width = part
            else:
                low += part
                width -= part
            if width < _TOP:
                _append(words, low >> 16)
                low, width = (low & 0xFFFF) << 16, width << 16
        self._low, self._width = low, width

    def finish(self) -> bytes:
        """The bytes, big-endian words of 16 bits; zeros at the end are left out."""
        for zeros in range(32, -1, -1):
            value = -(-self._low >> zeros) << zeros
            if value < self._low + self._width:
                break
        words = [*self._words]
        _append(words, value >> 16)
        words.append(value & 0xFFFF)
        return np.array(words, dtype=">u2").tobytes().rstrip(b"\0")


def _append(words: list[int], word: int) -> None:
    """Append 16 bits; the 17th is carried into the words before."""
    words.append(word & 0xFFFF)
    if word >> 16:
        place = len(words) - 2
        while words[place] == 0xFFFF:
            words[place] = 0
            place -= 1
        words[place] += 1


class BinaryReader:
    """Reads what `BinaryWriter` wrote, number after number."""

    def __init__(self, stream: bytes) -> None:
        words = np.frombuffer(stream + b"\0" * (len(stream) % 2), dtype=">u2").tolist()
        self._words = chain(words, repeat(0))
        self._value = next(self._words) << 16 | next(self._words)
        self._width = _TOP * _TOP

    def read(self, shape: tuple[int, int], neighbours: Neighbours, contexts: Contexts) -> Integers:
        """The next matrix of whole numbers; `contexts` learn.

        Raises:
            ValueError: a number is too long: these are not the bytes that were written.
        """
        numbers: list[int] = []
        for _ in range(shape[0]):
            self._read_row(shape[1], neighbours, contexts, numbers)
        return np.array(numbers, dtype=np.int32).reshape(shape)

    def _read_row(self, length: int, neighbours: Neighbours, contexts: Contexts, numbers: list[int]) -> None:
        fast, slow, uses, words, value, width = (
            *(contexts.fast, contexts.slow, contexts.uses),
            *(self._words, self._value, self._width),
        )
        first, second, third = neighbours.first, neighbours.second, neighbours.third
        before = previous = 0
        for _ in range(length):
            near = 2 * previous + before
            ladder = LADDERS[(near > first) + (near > second) + (near > third)]
            # A number is on its ladder (level ≥ 0) until the first no; then sign and digits follow (level −1).
            level, name, depth, digits, tail, negative = 0, ladder[0], 0, 0, 1, False
            while True:
                if name == RAW:
                    part = width >> 1
                    if answer := value < part:
                        width = part
                    else:
                        value -= part
                        width -= part
                else:
                    one, two, use = fast[name], slow[name], uses[name]
                    part = width * ((one + two) >> 9) >> 16
                    if answer := value < part:
                        width = part
                        fast[name] = one + ((_HIGH - one) * _FAST[use] >> 16)
                        slow[name] = two + ((_HIGH - two) * _SLOW[use] >> 16)
                    else:
                        value -= part
                        width -= part
                        fast[name] = one - ((one - _LOW) * _FAST[use] >> 16)
                        slow[name] = two - ((two - _LOW) * _SLOW[use] >> 16)
                    if use < _LENGTH - 1:
                        uses[name] = use + 1
                if width < _TOP:
                    value, width = value << 16 | next(words), width << 16
                if level >= 0:
                    if answer:
                        level += 1
                        if level == FLAGS + DIGITS:
                            raise ValueError("a number of more than 17 binary digits")
                        name = ladder[level]
                        continue
                    if level == 0:
                        break
                    digits, size, level, name = level - FLAGS, level, -1, SIGN
                    continue
                if name == SIGN:
                    negative = answer
                else:
                    tail = 2 * tail + answer
                    depth += 1
                if depth >= digits:
                    break
                name = SUFFIX + 4 * digits + (1 if depth == 0 else 2 + (tail & 1)) if depth < 2 else RAW
            if level == 0:
                before, previous = previous, 0
                numbers.append(0)
            else:
                before, previous = previous, size if digits < 0 else FLAGS - 1 + tail
                numbers.append(-previous if negative else previous)
        self._value, self._width = value, width
