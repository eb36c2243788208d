"""What stands in a model for its layers, as a folder for transformers says it: all of it, or a refusal by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, final

from torch import nn

from rank_search.errors import ExportError
from rank_search.export.recorded import Recorded, recorded
from rank_search.layers import Factorization, Opened, Parts, name_of, shares_factors

_BY_RANK: Final = ("linear", "transformers-conv1d", "embedding")
"""Kinds of layers that as `svd` are told by their rank alone."""


@final
@dataclass
class Replacements:
    """What the written module puts in the place of layers, by their names.

    Attributes:
        ranks: of layers that are two factors.
        ties: of each layer that uses the factors of one of these, the name of that one.
        parts: into what a layer is cut: names and outputs.
        forms: all other layers: which function of what tensors each is.
        functions: their texts, by name.
    """

    ranks: dict[str, int] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> Replacements:
        """Those of a model.

        Raises:
            ExportError: one cannot be written; all that cannot are named.
        """
        found, refused = cls(), list[str]()
        for name, module in model.named_modules():
            try:
                found._note(model, name, module)
            except ExportError as error:
                refused.append(f"{name} ({_described(module)}), as {error}")
        if refused:
            raise ExportError(
                f"--format transformers cannot write {'; '.join(refused)}. Search without these ([layers] "
                "factorizations, split and exclude), or use --format safetensors."
            )
        return found

    def to_config(self) -> dict[str, Any]:
        """What the configuration of the folder holds of it."""
        known = {"low_rank": self.ranks, "low_rank_ties": self.ties}
        more = {"low_rank_parts": self.parts, "low_rank_forms": self.forms}
        return known | {name: each for name, each in more.items() if each}

    def _note(self, model: nn.Module, name: str, module: nn.Module) -> None:
        if isinstance(module, Opened):
            self.parts[name] = sizes_of_parts(module)
        elif isinstance(module, Factorization):
            require_own_factors(module)
            ties = {tie.name: model.get_submodule(tie.name) for tie in module.layer.ties}
            if all(_is_by_rank(module, each) for each in (module, *ties.values())):
                self.ranks[name] = int(module.values["rank"])
                self.ties |= dict.fromkeys(ties, name)
                return
            self.forms[name] = self._form(module, module, None)
            self.forms |= {tie: self._form(each, module, name) for tie, each in ties.items()}

    def _form(self, made: Any, form: Factorization, source: str | None) -> dict[str, Any]:
        computed = recorded(made)
        return {
            "computes": self._function(computed, f"{name_of(type(form))} of a layer of the kind {made.layer.kind}."),
            "source": source,
            "takes": list(computed.takes),
            "tensors": {
                name: {
                    "parameter": isinstance(each, nn.Parameter),
                    "shape": list(each.shape),
                    "type": "" if each.dtype == made.layer.dtype else str(each.dtype).removeprefix("torch."),
                }
                for name, each in made.state_dict(keep_vars=True).items()
            },
        }

    def _function(self, computed: Recorded, about: str) -> str:
        """The name of the function, which layers that compute the same have in common."""
        for name, text in self.functions.items():
            if text == computed.function(name, about):
                return name
        name = f"computed_{len(self.functions)}"
        self.functions[name] = computed.function(name, about)
        return name


def require_own_factors(form: Factorization) -> None:
    """Refuse a form that shares factors with those of other layers: transformers would save these as parts of each.

    Raises:
        ExportError: it does.
    """
    if shares_factors(form):
        raise ExportError("its factors are also those of the layers that it is tied to")


def _is_by_rank(form: Factorization, module: Any) -> bool:
    return name_of(type(form)) == "svd" and module.layer.kind in _BY_RANK


def _described(module: nn.Module) -> str:
    if isinstance(module, Factorization):
        return f"{name_of(type(module))}, {module.layer.kind}"
    return type(module).__name__


def sizes_of_parts(module: Opened) -> list[tuple[str, int]]:
    """Of the parts of a layer that is cut.

    Raises:
        ExportError: they are not linear layers side by side.
    """
    if not isinstance(module, Parts) or module.channels != -1:
        raise ExportError("several layers are in one module there")
    return list(_parts(module))


def _parts(module: nn.Module) -> Iterator[tuple[str, int]]:
    for name, part in module.named_children():
        if not isinstance(part, nn.Linear | Factorization):
            raise ExportError(f"its part {name} is no linear layer")
        yield name, part.out_features if isinstance(part, nn.Linear) else part.layer.out_features
