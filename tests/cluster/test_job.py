"""`rank-search submit` to a real cluster."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rank_search.store import Store
from tests.cluster.head import SECONDS, Head
from tests.story.small import Small, write_study

pytestmark = pytest.mark.cluster


def quick(folder: Path, study: dict[str, Any], factory: str = "sound") -> Small:
    """The small study, its network untrained and not fine-tuned either."""
    task = {"factory": f"faulty.py:{factory}"}
    return write_study(folder, study=study, task=task, training={"epochs": 0}, launch={"workers": 1})


def finished(store: str, name: str) -> list[int]:
    with Store.open(store) as opened:
        return [row.number for row in opened.trials(opened.study(name))]


def lines_until(process: subprocess.Popen[str], word: str) -> str:
    """What a process says to the user, up to the line with this word."""
    said = ""
    assert process.stderr is not None
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


def test_a_study_runs_there_and_its_log_is_followed(head: Head, tmp_path: Path) -> None:
    store = tmp_path / "on the head.sqlite"
    study = quick(tmp_path / "study", {"name": "followed", "store": ""})
    process = head.submit(study.file, "--store", store, "--trials", 4, RAY_ADDRESS="http://203.0.113.1:1")
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + err
    assert "'followed' is job raysubmit_" in err
    assert "4/4 trials" in out
    assert finished(str(store), "followed") == [0, 1, 2, 3]


def test_who_is_interrupted_only_stops_looking(head: Head, tmp_path: Path) -> None:
    study = quick(tmp_path, {"name": "left", "store": "", "trials": 3, "artifacts": str(tmp_path / "files")})
    process = head.submit(study.file)
    said = lines_until(process, "results")
    id = re.findall(r"raysubmit_\w+", said)[0]
    assert process.stdout is not None
    assert "Runtime env" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert f"Detached: job {id} goes on." in err
    assert f"ray job stop --address {head.address} {id}" in err
    assert 'rank-search status "$RANK_SEARCH_STORE" left --watch' in err
    head.wait_for(id, "SUCCEEDED")
    assert finished(head.store, "left") == [0, 1, 2]
    assert list((tmp_path / "files").iterdir())


def test_a_job_that_fails_says_so_by_its_exit_code(head: Head, tmp_path: Path) -> None:
    study = quick(tmp_path, {"store": str(tmp_path / "store.sqlite")}, factory="unlucky")
    out, err = (process := head.submit(study.file)).communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert "no luck today" in out
    assert "Traceback" not in out + err
    assert "ended as FAILED" in err


def test_a_job_that_nobody_follows_is_named(head: Head, tmp_path: Path) -> None:
    study = quick(tmp_path, {"store": str(tmp_path / "store.sqlite")}, factory="unlucky")
    out, _ = (process := head.submit(study.file, "--no-follow")).communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert re.fullmatch(r"raysubmit_\w+\n", out)
    assert out.strip() in head.ray_job("status", out.strip())


@pytest.mark.parametrize("environment", [{"RAY_AUTH_TOKEN": "0" * 32}, {"RAY_AUTH_MODE": "disabled"}])
def test_without_the_token_nothing_is_submitted(head: Head, tmp_path: Path, environment: dict[str, str]) -> None:
    study = quick(tmp_path, {})
    out, err = (process := head.submit(study.file, **environment)).communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert out == ""
    assert "asks for its token" in err
    assert "RAY_AUTH_TOKEN" in err
    assert "Traceback" not in err
