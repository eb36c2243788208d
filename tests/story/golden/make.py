"""Makes the golden study with the build that is installed: `python make.py FOLDER [POSTGRESQL-URL]`.

It was run once; what it left is never made again, so that later builds open what an earlier one wrote. One trial of
the study fails, and its driver dies in another.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
from pathlib import Path

import rank_search as rs
from rank_search.observe import SearchProgress

HERE = Path(__file__).parent


def search(folder: Path, store: str) -> None:
    trouble = folder / "trouble"

    def report(progress: SearchProgress) -> None:
        """The fifth trial raises, in the last one the driver dies."""
        said = {4: "raise", 13: "die"}.get(progress.finished, "")
        trouble.write_text(said) if said else trouble.unlink(missing_ok=True)

    rs.run_study(rs.load_study(folder / "waves.toml"), store=store, report=report)


def main(folder: Path, store: str | None = None) -> None:
    folder.mkdir(parents=True)
    for name in ("waves.py", "waves.toml"):
        shutil.copy(HERE / "study" / name, folder)
    where = store or str(folder / "waves.sqlite")
    driver = multiprocessing.get_context("spawn").Process(target=search, args=(folder, where))
    driver.start()
    driver.join()
    assert driver.exitcode == 9
    (folder / "trouble").unlink()
    with rs.Store.open(where) as opened:
        study = opened.study("waves")
        assert opened.check(study) == []
        number = opened.front(study, sort="bits")[0].number
        rs.export_trial(opened, "waves", number, folder / "exported")
        rs.pack_trial(opened, "waves", number, folder / "packed.rsz")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), *sys.argv[2:])
