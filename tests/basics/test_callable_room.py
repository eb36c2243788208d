"""`rank_search.options` and `rank_search.layers` can be called, whatever was imported before, and stay packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALL = """
import torch
from torch import nn
model, x = nn.Sequential(nn.Linear(32, 32)), torch.zeros(1, 32)
table = rs.options(model, example=x)
small = rs.factorize(model, rs.allocate(table, params=0.5), table)
assert rs.layers(small, x)["0"].kind == "svd"
from rank_search.layers import Factorization
from rank_search.options import OptionTable
assert issubclass(rs.layers.Factorization, nn.Module) and isinstance(table, OptionTable)
import pickle
assert pickle.loads(pickle.dumps(rs.layers.layers)) is rs.layers.layers
"""


@pytest.mark.parametrize(
    "before",
    [
        "import rank_search as rs",
        "import rank_search.layers, rank_search.options; import rank_search as rs",
        "import rank_search as rs; import rank_search.layers.costs as costs, rank_search.options.table",
        "from rank_search import layers, options; import rank_search as rs; assert options is rs.options",
        "import rank_search as rs; rs.load_study, rs.compress, rs.Factorization",
        "from rank_search import *; import rank_search as rs; assert layers is rs.layers",
    ],
)
def test_the_four_lines_work_after_any_import(before: str) -> None:
    subprocess.run([sys.executable, "-c", before + CALL], check=True)
