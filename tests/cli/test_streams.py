"""Standard streams that never break, whatever has become of them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rank_search.streams import unbroken

ALL_OPEN = """
import os
from rank_search.streams import stand_in_for_closed
stand_in_for_closed()
opened = os.open(os.devnull, os.O_RDONLY)
assert opened > 2, "what is opened next must not be taken for a standard stream"
import sys
print("nobody reads this")
sys.stderr.write("nor this\\n")
os._exit(0)
"""
SAID = """
import sys
from rank_search.streams import unbroken
with unbroken("stdout"), unbroken("stderr"):
    for stream in (sys.stdout, sys.stderr, sys.stdout.buffer):
        for _ in range(100):
            stream.write("x" * 1000 if stream is not sys.stdout.buffer else b"x" * 1000)
            stream.flush()
    print("said", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    file.write("it went on")
"""


HELP = "import sys; sys.argv = ['rank-search', '--help']; from rank_search.cli import main; main()"


def run(code: str, *arguments: object, redirected: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    shell = ["bash", "-c", f'"$@" {redirected}', "bash"] if redirected else []
    return subprocess.run([*shell, *command], capture_output=True, text=True)


@pytest.mark.parametrize(
    "closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"], ids=["stderr", "stdout", "stdin", "both", "all"]
)
def test_what_was_closed_before_is_stood_in_for(closed: str) -> None:
    assert run(ALL_OPEN, redirected=closed).returncode == 0


@pytest.mark.parametrize(
    "gone",
    ["> /dev/full 2> /dev/full", "2>&1 | true", "> >(true) 2> >(true)"],
    ids=["full disk", "reader gone", "readers gone"],
)
def test_whoever_reads_may_go_away(gone: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    run(SAID, done, redirected=gone + " ; wait")
    assert done.read_text() == "it went on"


def test_what_is_read_arrives(tmp_path: Path) -> None:
    result = run(SAID, tmp_path / "done")
    assert (result.returncode, len(result.stdout), result.stderr) == (0, 200_000, "x" * 100_000 + "said\n")


def test_a_stream_that_somebody_has_put_in_its_place_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stderr", mine)
    with unbroken("stderr"):
        assert sys.stderr is mine
    monkeypatch.setattr(sys, "stdout", None)
    with unbroken("stdout"):
        assert sys.stdout is None


def test_a_stream_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a verb prints at its end must not be lost in silence."""
    with (tmp_path / "out").open("w", encoding="utf-8") as own:
        monkeypatch.setattr(sys, "stdout", own)
        monkeypatch.setattr(sys, "__stdout__", own)
        with unbroken("stdout"):
            assert sys.stdout is not own
            assert (sys.stdout.fileno(), sys.stdout.isatty()) == (1, os.isatty(1))
            with pytest.raises(OSError, match="gone"), unbroken("stdout"):
                raise OSError("gone")
        assert sys.stdout is own


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    ("redirected", "said"),
    [
        ("> /dev/full", "rank-search: No space left on device. Free some and run the same command again.\n"),
        ("> >(exec >&- <&-; sleep 0.1)", ""),
    ],
    ids=["full disk", "reader gone"],
)
def test_a_verb_whose_output_cannot_be_written_says_so_in_a_line_at_most(
    redirected: str, said: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    result = run(HELP, redirected=redirected)
    assert (result.returncode, result.stderr) == (1, said)
