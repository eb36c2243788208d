"""A stranger's factorization: a package of its own, built and installed into a virtual environment of its own.

`install(folder)` gives the environment's Python. It sees the packages of the current environment (so nothing is
downloaded) and, beside them, the stranger's package, whose entry point `stranger` names `InputSVD`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from textwrap import dedent

PROJECT = """
    [build-system]
    requires = ["setuptools"]
    build-backend = "setuptools.build_meta"

    [project]
    name = "rank-search-stranger"
    version = "1.2.3"
    dependencies = ["rank-search"]

    [project.entry-points."rank_search.factorizations"]
    stranger = "rank_search_stranger:InputSVD"
"""

MODULE = '''
    """The SVD on the input side: a 1×1 convolution to r channels, then a k×k convolution."""

    import torch

    from rank_search.layers import Axis, Factorization


    def matrix(weight):
        return weight.transpose(0, 1).flatten(1)


    class InputSVD(Factorization):
        @classmethod
        def axes(cls, layer):
            rows, columns = layer.kernel
            return (Axis("rank", 1, min(layer.in_features, layer.out_features * rows * columns), (matrix,)),)

        def __init__(self, layer, *, rank):
            super().__init__(layer, rank=rank)
            self.narrow = self.factor(layer.in_features, rank)
            self.wide = self.factor(layer.out_features, rank, *layer.shape[2:])

        @torch.no_grad()
        def fit(self, weight, bases):
            basis, rank = bases(matrix), self.narrow.shape[1]
            self.narrow.copy_(basis.left[:, :rank])
            self.wide.copy_(basis.projected[:rank].view_as(self.wide.transpose(0, 1)).transpose(0, 1))

        def dense(self):
            return torch.einsum("or...,ir->oi...", self.wide, self.narrow)

        def forward(self, x):
            return self.layer.operate(self.layer.mix(x, self.narrow.T), self.wide, self.bias)

        def frames(self):
            return (self.narrow,)
'''


def write_package(folder: Path) -> Path:
    """The sources of the package, as its author would lay them out; gives their folder."""
    module = folder / "src" / "rank_search_stranger" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text(dedent(MODULE).lstrip(), encoding="utf-8")
    (folder / "pyproject.toml").write_text(dedent(PROJECT).lstrip(), encoding="utf-8")
    return folder


def make_environment(folder: Path) -> Path:
    """A virtual environment that sees the current one's packages through a `.pth` file; gives its Python."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    variables = {"base": str(folder), "platbase": str(folder)}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    site_packages = Path(sysconfig.get_path("purelib", scheme, variables))
    paths = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    # addsitedir, and not the bare path, so that the .pth files of editable installs count there, too.
    lines = [f"import site; site.addsitedir({path!r})" for path in paths]
    (site_packages / "surroundings.pth").write_text("\n".join(lines), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", scheme, variables)) / "python"


def install(folder: Path) -> Path:
    """Build the package, install it into a new environment under `folder`, and give that environment's Python."""
    package = write_package(folder / "package")
    python = make_environment(folder / "environment")
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *offline, str(package)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip could not install the stranger's package:\n{done.stdout}\n{done.stderr}")
    return python
