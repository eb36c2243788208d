"""What a target machine needs to load an export or a packed file: torch, numpy, safetensors and constriction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import torch
from torch import nn

import rank_search as rs

FEW = ("torch", "numpy", "safetensors", "constriction", "rank_search")

BLOCKED = """
    import importlib.metadata as metadata, sys

    few = set(sys.argv[1].split(","))
    pending = list(few - {"rank_search"})
    needed = set()
    while pending:  # what the four require themselves is there, too
        name = pending.pop()
        if name in needed:
            continue
        needed.add(name)
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        pending += [each.split(";")[0].split("[")[0].strip(" ()<>=!~.,0123456789") for each in requires
                    if "extra ==" not in each]
    there = {each.replace("-", "_").lower() for each in needed}
    provided = metadata.packages_distributions()

    class Refuses:
        def find_spec(self, name, path=None, target=None):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top in few:
                return None
            homes = {each.replace("-", "_").lower() for each in provided.get(top, ())}
            if homes and not homes & there:
                raise ModuleNotFoundError(f"No module named {top!r} on a target machine", name=top)
            return None

    sys.meta_path.insert(0, Refuses())
"""


def python(code: str, folder: Path, *arguments: object) -> str:
    command = [sys.executable, "-c", dedent(BLOCKED) + dedent(code), ",".join(FEW), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_packed_file_and_a_folder_are_loaded_with_four_packages(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), torch.randn(16, 4)
    packed = rs.pack_model(model, [batch], example=batch[:1])
    packed.write(tmp_path / "small.rsz")
    rs.unpack_file(tmp_path / "small.rsz", tmp_path / "small")
    torch.save(batch, tmp_path / "batch.pt")
    with torch.no_grad():
        torch.save(packed.model(batch), tmp_path / "expected.pt")
    code = """
        import torch
        try:
            import pandas
        except ModuleNotFoundError:
            print("no pandas")
        import rank_search
        batch, expected = torch.load("batch.pt"), torch.load("expected.pt")
        for place in ("small.rsz", "small"):
            found = rank_search.load(place)(batch)
            print(float((found - expected).abs().max()) < 1e-5)
        rank_search.unpack_file("small.rsz", "again")
        print(len(rank_search.decode(rank_search.export.packed_file.read_packed(
            __import__("pathlib").Path("small.rsz")).payload)))
        try:
            rank_search.load("small")(torch.ones(2, 5))
        except rank_search.RankSearchError as error:
            print("size 5 in dimension 1" in str(error))
    """
    assert python(code, tmp_path).split("\n")[:-1] == ["no pandas", "True", "True", "4", "True"]
