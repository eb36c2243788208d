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
    FAST,
    FLOOR,
    RAW,
    SLOW,
    START,
    TOO_LONG,
    TREES,
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
    """Reads what `BinaryWriter` wrote, number after number.

    An answer is yes where `value` lies in the first part of the interval, which is cut down to that part:

        0              part              width
        |———— yes ——————|—————— no ———————|
    """

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
        """Append the next `length` numbers: each is what the answers lead to in the tree of its kind."""
        fast, slow, uses = contexts.fast, contexts.slow, contexts.uses
        words, value, width = self._words, self._value, self._width
        first, second, third = neighbours.first, neighbours.second, neighbours.third
        before = previous = 0
        for _ in range(length):
            near = 2 * previous + before
            name, if_no, if_yes = TREES[(near > first) + (near > second) + (near > third)]
            while name != RAW:
                one, two, use = fast[name], slow[name], uses[name]
                part = width * ((one + two) >> 9) >> 16
                if value < part:
                    width, then = part, if_yes
                    fast[name] = one + ((_HIGH - one) * _FAST[use] >> 16)
                    slow[name] = two + ((_HIGH - two) * _SLOW[use] >> 16)
                else:
                    value, width, then = value - part, width - part, if_no
                    fast[name] = one - ((one - _LOW) * _FAST[use] >> 16)
                    slow[name] = two - ((two - _LOW) * _SLOW[use] >> 16)
                if use < _LENGTH - 1:
                    uses[name] = use + 1
                if width < _TOP:
                    value, width = value << 16 | next(words), width << 16
                name, if_no, if_yes = then
            digits, number = if_no, if_yes
            if digits:
                lower = 0
                for _ in range(digits):
                    part = width >> 1
                    lower = 2 * lower + (value < part)
                    value, width = (value, part) if value < part else (value - part, width - part)
                    if width < _TOP:
                        value, width = value << 16 | next(words), width << 16
                number += lower if number > 0 else -lower
            numbers.append(number)
            before, previous = previous, abs(number)
        if TOO_LONG in numbers[-length:]:
            raise ValueError("a number of more than 17 binary digits")
        self._value, self._width = value, width
