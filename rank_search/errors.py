"""Everything rank-search raises on purpose, as one tree.

    RankSearchError
    ├── StudyFileError      (ValueError)    a study file breaks a rule; holds every complaint at once
    ├── StudyMismatchError  (ValueError)    a store's study was made from something else
    ├── PluginError
    │   ├── UnknownPluginError (LookupError)   no plugin of that name
    │   ├── BrokenPluginError  (ImportError)   it is there but does not load
    │   └── ContractError      (TypeError)     it loads but breaks the factorization contract
    ├── TaskError           (RuntimeError)  the user's model, data or metric cannot be used
    ├── SourceError         (ValueError)    inputs cannot be made for a model without data
    ├── LayerError          (ValueError)    a layer, its weights or a choice made for it
    ├── QueryError          (ValueError)    a question to a store that cannot be answered as asked
    ├── StoreError          (RuntimeError)  the store cannot be reached, read or written
    │   └── StoreAwayError                      it is away or busy just now; trying again may help
    ├── ArtifactError       (RuntimeError)  a trial's file cannot be written, or is not what was written
    │   ├── PlaceError                      a place for files that waiting makes no better
    │   └── CheckpointError                 a checkpoint that a trial cannot go on from
    ├── LaunchError         (RuntimeError)  workers or a cluster cannot be used
    ├── TrialError          (RuntimeError)  a trial cannot be carried out
    ├── TrialsFailedError   (RuntimeError)  trial after trial of a search fails
    └── ExportError         (RuntimeError)  a model could not be exported and verified

A message states the fault (what, where), the rule, and what to do. The command line prints it without a
traceback and exits with 2; with 1 where trial after trial has failed.
"""

from __future__ import annotations

from typing import Final

PACKAGE: Final = "."
"""What pip is told to install: the checkout, as long as no index has the package."""


def to_install(extra: str = "") -> str:
    """The command that installs this package, or it with an extra.

    >>> to_install("onnx")
    "pip install '.[onnx]'"
    """
    return f"pip install '{PACKAGE}[{extra}]'" if extra else f"pip install --upgrade {PACKAGE}"


class RankSearchError(Exception):
    """The root: catch this to catch everything that rank-search raises on purpose."""


class StudyFileError(RankSearchError, ValueError):
    """A study file breaks a rule."""


class StudyMismatchError(RankSearchError, ValueError):
    """The study in the store was made from another study file, other weights or other plugins."""


class PluginError(RankSearchError):
    """A factorization plugin cannot be used."""


class UnknownPluginError(PluginError, LookupError):
    """No factorization has that name."""


class BrokenPluginError(PluginError, ImportError):
    """A factorization is registered but cannot be loaded."""


class ContractError(PluginError, TypeError):
    """A factorization breaks the contract of `rank_search.layers.Factorization`."""


class TaskError(RankSearchError, RuntimeError):
    """The task's model, data, loss or metric cannot be used."""


class SourceError(RankSearchError, ValueError):
    """Inputs cannot be made for this model without data."""


class LayerError(RankSearchError, ValueError):
    """A layer, its weights, or a choice made for it is impossible."""


class QueryError(RankSearchError, ValueError):
    """A question to a store cannot be answered as asked."""


class StoreError(RankSearchError, RuntimeError):
    """The store cannot be reached, read or written."""


class StoreAwayError(StoreError):
    """The store is away or busy just now: its server is out of reach or full, its file locked, its disk full."""


class ArtifactError(RankSearchError, RuntimeError):
    """A trial's file cannot be written, cannot be read, or is not what was written."""


class PlaceError(ArtifactError):
    """A place for files that waiting makes no better: its package is not installed, or nobody knows its protocol."""


class CheckpointError(ArtifactError):
    """A checkpoint that a trial cannot go on from: of another one, of another version, or of other data."""


class LaunchError(RankSearchError, RuntimeError):
    """Workers, or a cluster, cannot be used."""


class TrialError(RankSearchError, RuntimeError):
    """A trial cannot be carried out."""


class TrialsFailedError(RankSearchError, RuntimeError):
    """Trial after trial of a search fails."""


class ExportError(RankSearchError, RuntimeError):
    """A model could not be exported and verified."""
