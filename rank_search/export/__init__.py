"""The back door: a point of the front becomes a model to deploy.

Names are loaded when they are first used, so that `load` needs nothing but torch, numpy, safetensors and constriction.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rank_search.export.loading import load
    from rank_search.export.onnx_file import OnnxModule
    from rank_search.export.packed import pack_module, pack_trial
    from rank_search.export.trial import build_model, export_trial
    from rank_search.export.unpacked import unpack_file
    from rank_search.export.watching import Seen, watched
    from rank_search.export.whole import check_free

_HOMES: Final = {
    "load": "loading",
    "OnnxModule": "onnx_file",
    "pack_module": "packed",
    "pack_trial": "packed",
    "build_model": "trial",
    "export_trial": "trial",
    "unpack_file": "unpacked",
    "Seen": "watching",
    "watched": "watching",
    "check_free": "whole",
}

__all__ = [
    "OnnxModule",
    "Seen",
    "build_model",
    "check_free",
    "export_trial",
    "load",
    "pack_module",
    "pack_trial",
    "unpack_file",
    "watched",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
