"""The back door: a point of the front becomes a model to deploy."""

from rank_search.export.formats import OnnxModule
from rank_search.export.packed import pack_module, pack_trial, unpack_file
from rank_search.export.trial import build_model, export_trial, load

__all__ = ["OnnxModule", "build_model", "export_trial", "load", "pack_module", "pack_trial", "unpack_file"]
