"""The small module of Python by which transformers opens a model with layers of low rank, and its configuration."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from torch import nn

from rank_search.export import modeling_low_rank
from rank_search.export.replacements import Replacements

MODELING: Final = "modeling_low_rank"

_CONFIG: Final = "config.json"
_PREFIX: Final = "LowRank"

_CLASSES: Final = '''

from transformers import {config}, {model}  # noqa: E402


class {prefix}{config}({config}):
    """With what stands for layers, by their names: `low_rank` (ranks), `low_rank_ties` (whose factors a layer uses),
    `low_rank_parts` (into what it is cut), and `low_rank_forms` (which function of what tensors any other is)."""

    model_type = "{type}"


class {prefix}{model}({model}):
    """The model with these layers of low rank."""

    config_class = {prefix}{config}

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        put_low_rank(self)

    def get_expanded_tied_weights_keys(self, all_submodels=False):
        """Which parameters are tied, by their names: no weights of layers of low rank."""
        known = getattr(self, "still_tied", None)  # not before they are in place
        return super().get_expanded_tied_weights_keys(all_submodels) if known is None else dict(known[all_submodels])
'''

_AUTO: Final[Mapping[str, str]] = {
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForMaskedLM": "MASKED_LM",
    "AutoModelForSeq2SeqLM": "SEQ_TO_SEQ_CAUSAL_LM",
    "AutoModelForSpeechSeq2Seq": "SPEECH_SEQ_2_SEQ",
    "AutoModelForSequenceClassification": "SEQUENCE_CLASSIFICATION",
    "AutoModelForTokenClassification": "TOKEN_CLASSIFICATION",
    "AutoModelForQuestionAnswering": "QUESTION_ANSWERING",
    "AutoModelForImageClassification": "IMAGE_CLASSIFICATION",
    "AutoModelForAudioClassification": "AUDIO_CLASSIFICATION",
    "AutoModelForCTC": "CTC",
    "AutoModelForMultipleChoice": "MULTIPLE_CHOICE",
    "AutoModelForSemanticSegmentation": "SEMANTIC_SEGMENTATION",
    "AutoModelForObjectDetection": "OBJECT_DETECTION",
    "AutoModelForDepthEstimation": "DEPTH_ESTIMATION",
    "AutoModelForImageTextToText": "IMAGE_TEXT_TO_TEXT",
    "AutoModelForZeroShotImageClassification": "ZERO_SHOT_IMAGE_CLASSIFICATION",
}
"""What opens a folder, and how transformers' tables of the models that each opens are called."""


def write_module(folder: Path, model: Any, made: Replacements) -> None:
    """Write the module beside a model that transformers has saved, and name its classes in the configuration."""
    names = {"model": type(model).__name__, "config": type(model.config).__name__}
    source, classes = inspect.getsource(modeling_low_rank), _CLASSES.format(**names, type=_type(model), prefix=_PREFIX)
    text = "\n\n".join([source, *(f"{each}\n" for each in made.functions.values())]) + classes
    (folder / f"{MODELING}.py").write_text(text, encoding="utf-8")
    path, own = folder / _CONFIG, f"{MODELING}.{_PREFIX}"
    values = json.loads(path.read_text(encoding="utf-8")) | {
        "architectures": [f"{_PREFIX}{names['model']}"],
        "auto_map": {
            "AutoConfig": f"{own}{names['config']}",
            **dict.fromkeys(_auto_classes(names["model"]), f"{own}{names['model']}"),
        },
        **made.to_config(),
        "model_type": _type(model),
    }
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def opened(folder: Path, name: str) -> nn.Module:
    """The model in a folder, made of a class of that name, in evaluation mode.

    The module is run where it is; by `AutoModel…` transformers would run a copy, and leave it in its cache.
    """
    own = f"{MODELING}_{secrets.token_hex(4)}"
    spec = importlib.util.spec_from_file_location(own, folder / f"{MODELING}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[own] = module  # where transformers looks for the module of a class
    try:
        spec.loader.exec_module(module)
        found: nn.Module = getattr(module, f"{_PREFIX}{name}").from_pretrained(folder, dtype="auto")
    finally:
        del sys.modules[own]
    return found.eval()


def _type(model: Any) -> str:
    """Not the model's own type, by which the folder would open without the module, with random numbers as weights."""
    return f"low_rank_{model.config.model_type}"


def _auto_classes(name: str) -> list[str]:
    tables = importlib.import_module("transformers.models.auto.modeling_auto")
    known = {auto: getattr(tables, f"MODEL_FOR_{table}_MAPPING_NAMES", {}) for auto, table in _AUTO.items()}
    return [auto for auto, table in known.items() if name in _flat(table.values())] or ["AutoModel"]


def _flat(values: Iterable[Any]) -> Iterator[str]:
    for each in values:
        yield from [each] if isinstance(each, str) else each
