"""Step 1 of the data path: a TOML file becomes a frozen `Study`, or every complaint at once."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rank_search.errors import StudyFileError
from rank_search.launch import LaunchSettings
from rank_search.layers import LayersSettings
from rank_search.priors import PriorSettings
from rank_search.quantization import CodingSettings
from rank_search.search import KEPT, PYTHON, SearchSettings
from rank_search.study.complaints import complaints
from rank_search.study.data_rules import broken_rule
from rank_search.study.data_settings import DataSettings
from rank_search.study.paths import beside, relative_part
from rank_search.training import OverparameterizedSettings, TrainingSettings
from rank_search.trials import LatencySettings


class StudySettings(BaseModel):
    """The study's name, how long it runs, and where it keeps its results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="Name of the study in its store.")
    trials: int = Field(60, ge=1, description="Finished trials to reach, seed points and infeasible ones included.")
    seed: int = Field(
        0, ge=0, description="Seed of every random number: the same seed on one worker repeats the study."
    )
    method: Literal["factorized", "overparameterized"] = Field(
        "factorized",
        description="`factorized`: trials factorize the network as it is. `overparameterized`: it is first trained as "
        "factors of full rank, once, see `[overparameterized]`.",
    )
    test: Literal["front", "asked", "none"] = Field(
        "front",
        description="What is measured on the test data. `front`: after the search, the dense model and the members of "
        "the front, as far as `test_share` allows. `asked`: the same, but only with `rank-search run --test`. `none`: "
        "nothing.",
    )
    test_share: float = Field(
        0.5,
        ge=0,
        description='With `test = "front"`: the most that measuring on the test data may take, as a share of the time '
        "that the search took; a minute is always allowed. The knee comes first, and `rank-search run --test` measures "
        "what is left.",
    )
    store: str = Field(
        "",
        description="SQLAlchemy URL, or path of an SQLite file (relative to the study file). One in the current "
        "folder, where earlier versions made it, is found too. "
        "Default: what `RANK_SEARCH_STORE` says, or `<name>.sqlite`.",
    )
    artifacts: str = Field(
        "",
        description="Where trials leave their files: a folder (relative to the study file), or a URL that fsspec "
        "knows, such as `s3://BUCKET/PREFIX`; on a cluster, one that all nodes share. Each study has a folder of its "
        "own there, named after it and a number that no other study has. Fixed when the study begins. "
        "Default: a folder next to an SQLite file, or next to the study file if the store is a server.",
    )
    cache: str = Field(
        "",
        description="Folder for spectra and bases, shared by all studies (relative to the study file). "
        "Default: a `rank-search` folder in the user's cache folder.",
    )


class TaskSettings(BaseModel):
    """Where the model, the data and the metric come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factory: str = Field(
        description="`file.py:function` (relative to the study file) or `package.module:function`; "
        "called with `options`, it returns a `rank_search.Task`; with `[data] source`, also a network, or a network "
        "and an example. Or, with `[data] source`, a file of `torch.export.save`, `model.pt2`: nothing in it is run."
    )
    example: str = Field(
        default="",
        description="What one forward takes, for a factory that returns a network alone: a shape, such as "
        "`1x3x32x32`, or `1x128,int64` for token ids.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the factory.")


class Study(BaseModel):
    """A study file: frozen and validated. `folder` is where its relative paths start."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: StudySettings
    task: TaskSettings
    data: DataSettings = DataSettings()
    layers: LayersSettings = LayersSettings()
    priors: PriorSettings = PriorSettings()
    search: SearchSettings = SearchSettings()
    training: TrainingSettings = TrainingSettings()
    coding: CodingSettings = CodingSettings()
    overparameterized: OverparameterizedSettings = OverparameterizedSettings()
    latency: LatencySettings = LatencySettings()
    launch: LaunchSettings = LaunchSettings()
    folder: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _what_is_asked_for_can_be_had_without_labels(self) -> Self:
        if broken := broken_rule(self.data, self.study.method, self.priors, self.search, self.training):
            raise ValueError(broken)
        return self

    @property
    def name(self) -> str:
        return self.study.name

    def launched(self, changes: Mapping[str, Any]) -> Study:
        """The study with other keys of [launch]; those that are None stay as they are."""
        given = {key: value for key, value in changes.items() if value is not None}
        return self.model_copy(update={"launch": self.launch.model_copy(update=given)})

    def tested(self) -> Study:
        """The study with all of its front measured on the test data, however long that takes."""
        changed = self.study.model_copy(update={"test": "front", "test_share": math.inf})
        return self.model_copy(update={"study": changed})

    @classmethod
    def kept(cls, tables: Mapping[str, Any]) -> Study:
        """The study of tables that were valid when a store took them."""
        return cls.model_validate(tables, context={KEPT: True})

    @classmethod
    def from_python(cls, tables: Mapping[str, Any]) -> Study:
        """The study of tables that were written in Python, so that complaints are, too.

        Raises:
            ValidationError: they break rules.
        """
        return cls.model_validate(tables, context={PYTHON: True})

    @property
    def store(self) -> str:
        """URL or path of the store. What RANK_SEARCH_STORE says is relative to the current folder, as any command."""
        if not self.study.store and (asked := os.environ.get("RANK_SEARCH_STORE")):
            return asked
        return beside(self._store, self.folder)

    @property
    def store_here(self) -> Path | None:
        """Where earlier versions had the store, if it is relative: in the current folder."""
        path = None if not self.study.store and os.environ.get("RANK_SEARCH_STORE") else relative_part(self._store)
        return None if path is None else Path.cwd() / path

    @property
    def _store(self) -> str:
        return self.study.store or f"{self.name}.sqlite"


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Raises:
        StudyFileError: it cannot be read, is not TOML, or breaks rules; all complaints are in the one message.
    """
    path = Path(path)
    if path.suffix in (".pt2", ".pt") or ".py:" in path.name:
        raise StudyFileError(
            f"{path} is a network, and a study file is needed here. `rank-search run {path} --data none` writes one "
            "beside the store and searches; docs/no-data.md has its keys."
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StudyFileError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path} is not TOML in UTF-8: {error}.") from error
    if "folder" in data:
        raise StudyFileError(f"{path}: there is no key 'folder'.")
    try:
        return Study.model_validate({**data, "folder": path.resolve().parent})
    except ValidationError as error:
        lines = "\n".join(f"  {line}" for line in complaints(error, Study))
        raise StudyFileError(
            f"{path} breaks {len(error.errors())} of the rules in docs/study-file.md:\n{lines}"
        ) from None
