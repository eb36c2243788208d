"""Which sizes of its inputs a written model was shown to take; any other is refused when the model is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from rank_search.errors import ExportError
from rank_search.programs.conditions import Condition, Shapes, shown, value_of

BATCH: Final = "batch"

_WRONG: Final = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)


@final
@dataclass(frozen=True)
class Sizes:
    """The sizes that a written model takes.

    Attributes:
        names: of the inputs.
        shapes: for each input, the size of each dimension: a number, or a name if it may vary. Dimensions of one name
            have one size.
        ranges: the least and the largest size of each name; None: there is no largest.
        conditions: what else sizes that may vary have to obey.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int | str, ...], ...]
    ranges: Mapping[str, tuple[int, int | None]]
    conditions: tuple[Condition, ...] = ()

    @property
    def any_batch(self) -> bool:
        """Whether batches of any size are taken."""
        return any(shape[:1] == (BATCH,) for shape in self.shapes)

    def varies(self, place: int, dimension: int) -> bool:
        """Whether a dimension of an input may have several sizes."""
        return isinstance(self.shapes[place][dimension], str)

    def complaint(self, found: Shapes) -> str:
        """What is wrong with inputs of these shapes; empty if nothing is."""
        if len(found) != len(self.shapes):
            return f"this model takes {len(self.shapes)} inputs; it was given {len(found)}"
        sizes: dict[str, tuple[int, str]] = {}
        for place, (shape, traced) in enumerate(zip(found, self.shapes, strict=True)):
            if len(shape) != len(traced):
                return f"input {self.names[place]!r} has {len(shape)} dimensions; it was exported with {len(traced)}"
            for dimension, (size, known) in enumerate(zip(shape, traced, strict=True)):
                where = f"input {self.names[place]!r} has size {size} in dimension {dimension}"
                if isinstance(known, int):
                    if size != known:
                        return f"{where}; it was exported for size {known} there"
                elif size != sizes.setdefault(known, (size, where))[0]:
                    return f"{where}, but {sizes[known][1]}; the two are equal"
                elif not self._in_range(known, size):
                    return f"{where}; it was exported for {self._range(known)} there"
        return self._broken(found)

    def check(self, found: Shapes) -> None:
        """Refuse inputs of other shapes.

        Raises:
            ExportError: with the input, its dimension, and both sizes.
        """
        if said := self.complaint(found):
            raise ExportError(
                f"The model was not exported for inputs of this size: {said}. Give inputs of that "
                "size, or export the model again with that dimension in --dynamic."
            )

    def _in_range(self, name: str, size: int) -> bool:
        least, most = self.ranges.get(name, (1, None))
        return least <= size and (most is None or size <= most)

    def _range(self, name: str) -> str:
        least, most = self.ranges.get(name, (1, None))
        return f"sizes from {least}" + (f" to {most}" if most is not None else "")

    def _broken(self, found: Shapes) -> str:
        for condition in self.conditions:
            if not _holds(condition, found):
                shapes = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(self.names, found, strict=True))
                return f"inputs of the shapes {shapes} break {shown(condition, self.names)}, which its forward took"
        return ""

    def to_json(self) -> dict[str, Any]:
        """What a manifest holds."""
        return {
            "names": list(self.names),
            "shapes": [list(shape) for shape in self.shapes],
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "conditions": list(self.conditions),
        }


def _holds(condition: Condition, found: Shapes) -> bool:
    try:
        return bool(value_of(condition, found))
    except _WRONG:  # a division by a size of nothing
        return False


def sizes_in(manifest: Mapping[str, Any]) -> Sizes | None:
    """The sizes in a manifest; in one from before they were written, those of the example, for any batch if it says so.

    None if it says nothing of its inputs.

    Raises:
        ExportError: they are damaged.
    """
    try:
        if (found := manifest.get("sizes")) is not None:
            return _read(found)
        return _of_example(manifest["inputs"], manifest["any_batch"]) if "inputs" in manifest else None
    except _WRONG as error:
        raise ExportError(
            f"The sizes in the model's manifest cannot be read: {type(error).__name__}: {error}. "
            "Export the model again."
        ) from error


def _read(found: Mapping[str, Any]) -> Sizes:
    shapes = tuple(tuple(_size(each) for each in shape) for shape in found["shapes"])
    ranges = {str(name): (int(least), None if most is None else int(most)) for name, (least, most) in _items(found)}
    names = tuple(map(str, found["names"]))
    if len(names) != len(shapes):
        raise ValueError(f"{len(names)} names for {len(shapes)} inputs")
    sizes = Sizes(names, shapes, ranges, tuple(found["conditions"]))
    for condition in sizes.conditions:
        shown(condition, names)
    return sizes


def _items(found: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    return list(found["ranges"].items())


def _size(value: object) -> int | str:
    if isinstance(value, int | str):
        return value
    raise TypeError(f"a size is a number or a name; found {type(value).__name__}")


def _of_example(inputs: Sequence[Sequence[int]], any_batch: bool) -> Sizes:
    shapes = [tuple(map(int, shape)) for shape in inputs]
    known: list[tuple[int | str, ...]] = [(BATCH, *shape[1:]) if any_batch and shape else shape for shape in shapes]
    names = tuple(f"{place}" for place in range(len(shapes)))
    return Sizes(names, tuple(known), {BATCH: (1, None)} if any_batch else {})
