from __future__ import annotations

from pathlib import Path

import pytest

from rank_search.report import Reference, ReportOptions, SpectrumChart, write_report
from rank_search.store import Store
from tests.report.report_tools import HOSTILE, LAYERS, fill, study_record

HOSTILE_LAYERS = (*LAYERS[:2], f"head.{HOSTILE}")


@pytest.fixture(scope="session")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in a folder, of a study, with a layer, whose names are all trouble."""
    folder = tmp_path_factory.mktemp("it's $HOME & `co`")
    with Store.open(folder / "a store.sqlite", create=True) as store:
        fill(store, study_record(("error", "macs", "bits"), HOSTILE_LAYERS, name=HOSTILE), 60)
    return folder / "a store.sqlite"


@pytest.fixture(scope="session")
def page_file(hostile_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, with a reference point and spectra."""
    target = tmp_path_factory.mktemp("page") / "report.html"
    references = [Reference.parse(f"{HOSTILE}:error=0.05,macs=2e7,bits=1e6")]
    values = [0.9**k for k in range(32)]
    spectra = [SpectrumChart(layer, [("svd", "rank"), ("tucker2", "rank_out")], values) for layer in HOSTILE_LAYERS]
    with Store.open(hostile_store) as store:
        write_report(store, str(hostile_store), HOSTILE, target, ReportOptions(references, spectra))
    return target
