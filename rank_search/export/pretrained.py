"""A model of Hugging Face's transformers as a folder that transformers opens, without this package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from torch import nn

from rank_search.errors import ExportError
from rank_search.export.arguments import Arguments
from rank_search.export.compared import Beside
from rank_search.export.free_sizes import free_sizes
from rank_search.export.pretrained_module import opened, write_module
from rank_search.export.quiet import quiet, said
from rank_search.export.replacements import Replacements
from rank_search.export.tracing import Place
from rank_search.layers import Example, copied

PRETRAINED: Final = "transformers"
"""The name of the format."""


def write_pretrained(model: nn.Module, plain: nn.Module, example: Example, asked: set[Place], folder: Path) -> Beside:
    """Write `plain` into a folder, open that, and return what it holds beside the model, to be compared.

    The folder has transformers' files (configuration, tensors, settings of generation) and a small module, which
    `trust_remote_code=True` runs. What it holds keeps its cache, and takes any batch and length that the model takes.

    Raises:
        ExportError: the model is not of a class of transformers itself, a layer is factorized in a way that cannot be
            written, or transformers cannot save or open it.
    """
    require_pretrained(plain)
    made = Replacements.of(plain)
    with quiet():
        try:
            copied(plain).save_pretrained(folder, save_original_format=False)  # type: ignore[operator]
            write_module(folder, plain, made)
            written = opened(folder, type(plain).__name__)
        except OSError:
            raise
        except Exception as error:
            raise ExportError(
                f"transformers cannot save {type(plain).__name__} and open it again: {said(error)}. Use --format "
                "safetensors."
            ) from error
    sizes = free_sizes(copied(plain), Arguments.of(plain, example), asked)
    return Beside.of(model, written, sizes, called_like_model=True)


def require_pretrained(model: Any) -> None:
    """Refuse a model of which no folder can be written, whatever its layers are.

    Raises:
        ExportError: it is not of a class of transformers itself.
    """
    library: Any = sys.modules.get("transformers")
    if library is None or not isinstance(model, library.PreTrainedModel):
        raise ExportError(
            f"The model is a {type(model).__name__}; --format transformers writes models of transformers' own classes "
            "(PreTrainedModel), without --fuse. Use --format safetensors."
        )
    for own in (type(model), type(model.config)):
        if getattr(library, own.__name__, None) is not own:
            raise ExportError(
                f"{own.__name__} is no class of transformers itself, so that a folder would not open without the code "
                "of that class. Use --format safetensors."
            )
