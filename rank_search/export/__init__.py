"""The back door: a point of the front becomes a model to deploy.

Names are loaded when they are first used, so that `load` needs nothing but torch, numpy, safetensors and constriction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rank_search.basics import lazy_door

if TYPE_CHECKING:
    from rank_search.export.folder_rehearsal import say_if_no_folder
    from rank_search.export.loading import load
    from rank_search.export.pack_as_is import PackedModel, pack, pack_model
    from rank_search.export.packed import pack_trial
    from rank_search.export.rehearsal import say_if_unexportable
    from rank_search.export.trial_model import build_model, export_trial
    from rank_search.export.unpacked import unpack_file
    from rank_search.export.verify import measured
    from rank_search.export.whole import check_free
    from rank_search.export.written import Deployable, form_of, write_model

_HOMES: Final = {
    "Deployable": "written",
    "PackedModel": "pack_as_is",
    "build_model": "trial_model",
    "check_free": "whole",
    "export_trial": "trial_model",
    "form_of": "written",
    "load": "loading",
    "measured": "verify",
    "pack": "pack_as_is",
    "pack_model": "pack_as_is",
    "pack_trial": "packed",
    "say_if_no_folder": "folder_rehearsal",
    "say_if_unexportable": "rehearsal",
    "unpack_file": "unpacked",
    "write_model": "written",
}

__all__ = [
    "Deployable",
    "PackedModel",
    "build_model",
    "check_free",
    "export_trial",
    "form_of",
    "load",
    "measured",
    "pack",
    "pack_model",
    "pack_trial",
    "say_if_no_folder",
    "say_if_unexportable",
    "unpack_file",
    "write_model",
]

__getattr__ = lazy_door(__name__, _HOMES)
