"""Patterns of `[layers] tie`: globs that capture parts of a name, by which the layers are told apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Final, NoReturn, final

from rank_search.errors import LayerError
from rank_search.layers.globs import matches

Captured = tuple[tuple[str, str | int], ...]
"""What the captures of a pattern stand for in one name, sorted by their names."""

_PIECES: Final = re.compile(r"(\[!?\]?[^\]]*\]|\{[^{}]*\}|[()|*?{}])")
_CAPTURE: Final = re.compile(r"\{([A-Za-z_]\w*)(?::([1-9]\d*))?\}")
_SIMPLE: Final = {"*": ".*", "?": ".", "(": "(?:", ")": ")", "|": "|"}


@final
@dataclass(frozen=True)
class TiePattern:
    """One pattern: a glob, or one with captures and alternatives in it.

    `{part}` stands for a number or any other part between dots, and layers in which it differs are told apart;
    `{block:4}` stands for a number, of which 0 to 3, 4 to 7 and so on count as one; `(q|k)` is either, and both count
    as one.

    >>> TiePattern.of("layers.{block:4}.(q|k)").captured("layers.6.k")
    (('block', 1),)
    >>> TiePattern.of("layers.*").captured("head") is None
    True
    """

    text: str
    pattern: re.Pattern[str] | None
    widths: tuple[tuple[str, int], ...]  # 0: the part as it is

    @classmethod
    def of(cls, text: str) -> TiePattern:
        """Read a pattern.

        Raises:
            LayerError: its braces or parentheses make no sense.
        """
        pieces, widths = _PIECES.split(text), dict[str, int]()
        if not {"(", "|", ")"} <= {*pieces} and not any(piece[:1] in ("{", "}") for piece in pieces):
            return cls(text, None, ())
        found = "".join(_pieces(text, pieces, widths))
        return cls(text, re.compile(found, re.DOTALL), tuple(sorted(widths.items())))

    def captured(self, name: str) -> Captured | None:
        """What the pattern captures of a layer's name; None where it does not match."""
        if self.pattern is None:
            return () if matches(name, self.text) else None
        found = self.pattern.fullmatch(name)
        if found is None:
            return None
        return tuple((key, int(found[key]) // width if width else found[key]) for key, width in self.widths)


def tied(texts: Sequence[str], names: Iterable[str]) -> dict[str, Captured]:
    """The names that a list of patterns matches, each with what the first one to match it captures, in their order.

    A pattern that is a name is that name alone.

    Raises:
        LayerError: a pattern is malformed, one with captures or alternatives matches no name, or they capture different
            parts.

    >>> tied(["{block:2}.q", "{block:2}.k"], ["0.q", "0.k", "0.v", "1.q", "2.q"])
    {'0.q': (('block', 0),), '0.k': (('block', 0),), '1.q': (('block', 0),), '2.q': (('block', 1),)}
    """
    names = list(names)
    patterns = [TiePattern(text, None, ()) if text in names else TiePattern.of(text) for text in texts]
    _check_alike(patterns)
    found = {name: [each.captured(name) for each in patterns] for name in names}
    for place, each in enumerate(patterns):
        if each.pattern is not None and all(captured[place] is None for captured in found.values()):
            raise LayerError(f"{each.text!r} in [layers] tie matches no layer; each pattern must match one.")
    firsts = {name: next((each for each in captured if each is not None), None) for name, captured in found.items()}
    return {name: captured for name, captured in firsts.items() if captured is not None}


def _check_alike(patterns: Sequence[TiePattern]) -> None:
    for each in patterns[1:]:
        if each.widths != patterns[0].widths:
            raise LayerError(
                f"{patterns[0].text!r} and {each.text!r} are in one list of [layers] tie and capture different parts. "
                "Patterns of one list capture the same ones. Give each a list of its own."
            )


def _pieces(text: str, pieces: Iterable[str], widths: dict[str, int]) -> Iterator[str]:
    """Regular expressions of the pieces, in order; the captures' widths are noted on the way."""
    depth = 0
    for piece in filter(None, pieces):
        depth += {"(": 1, ")": -1}.get(piece, 0)
        if depth < 0 or (piece == "|" and not depth):
            _refuse(text, f"{piece!r} has no '(' before it")
        if piece[0] in "{}":
            yield _capture(text, piece, widths, depth)
        elif piece[0] == "[" and piece[-1] == "]":
            yield translate(piece).removeprefix("(?s:").rpartition(")")[0]
        else:
            yield _SIMPLE.get(piece) or re.escape(piece)
    if depth:
        _refuse(text, "'(' has no ')' after it")


def _capture(text: str, piece: str, widths: dict[str, int], depth: int) -> str:
    found = _CAPTURE.fullmatch(piece)
    if found is None:
        _refuse(text, f"{piece!r} captures nothing")
    key, width = found[1], int(found[2] or 0)
    if key in widths or depth:
        _refuse(text, f"{piece!r} stands {'in parentheses' if depth else 'there twice'}")
    widths[key] = width
    return f"(?P<{key}>{'[0-9]+' if width else '[^.]+'})"


def _refuse(text: str, fault: str) -> NoReturn:
    raise LayerError(
        f"{text!r} in [layers] tie is malformed: {fault}. A pattern is a glob with captures such as {{part}} or "
        "{block:4}, each once and outside parentheses, and alternatives such as (q|k). Write a brace of a name as [{]."
    )
