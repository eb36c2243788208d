"""A trained network packed without training, beside NNCodec (ISO/IEC 15938-17) and CERWU (arXiv:2505.18758): bytes, and
errors of decoded weights.

Run: python -m benchmarks.post_training studies/cifar_resnet.toml
     [--options '{"data": "…", "weights": "resnet32_cifar10.safetensors", "depth": 32}'] [--slopes 1e-4 4e-4]
     [--qps -24 -20 -16] [--forms canonical] [--trades 1e-4 1e-3] [--bins 16 32] [--calibration 8] [--test]
     [--out rows.json]

NNCodec is the package `nncodec` of PyPI, and CERWU what `benchmarks/cerwu.py` says; where one cannot be imported, its
rows are missing. NNCodec codes the network in three forms: as it is; with batch norms in canonical form, y = a·x + b,
whose two other vectors are constants and not coded (what its own folding comes to); and with batch norms folded into
the layers. Trellis quantization (`use_dq`) is on, whatever needs training is off, and vectors take `nonweight_qp` −28,
which is as good as its default −75 and smaller. CERWU rounds every convolution and linear layer; λ (`--trades`) and the
number of bins of its grid are swept together, and it gets our calibration batches. It writes no file of a whole
network, so NNCodec codes its whole numbers, and its vectors and batch norms in canonical form as its own; four bytes
are counted for each step. Bytes are those of NNCodec's bit streams, and of our coded payload; a `.rsz` file has the
traced graph beside it. Every error is that of decoded weights. Choose points by the selection data, and look at the
test data (`--test`) once. At the end: how much smaller our files are at the errors of the others' fronts, between our
points on a line in the logarithm of the bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.cerwu import hessians, layers_of, rounded
from rank_search.export import pack
from rank_search.layers import fuse
from rank_search.study import load_study, load_task
from rank_search.tasks import Task, seeded

NONWEIGHT_QP: Final = -28
_STEP: Final = 4  # bytes

Row = dict[str, Any]


def calibration_batches(task: Task, count: int) -> list[Any]:
    with seeded(0):
        return list(islice(task.training(), count))


def packed_rows(task: Task, slopes: list[float], calibration: int) -> Iterator[tuple[Row, nn.Module]]:
    """Our own."""
    batches = calibration_batches(task, calibration)
    for slope in slopes:
        begun = time.perf_counter()
        found = pack(task.model(), task.loss, batches, task.example(), slope)
        seconds = time.perf_counter() - begun
        yield {"codec": "pack-model", "setting": f"slope {slope:g}", "bytes": found.size, "s": seconds}, found.model


def nncodec_rows(task: Task, qps: list[int], forms: list[str]) -> Iterator[tuple[Row, nn.Module]]:
    """NNCodec's, of each form of the network."""
    made = {"as it is": task.model(), "canonical": canonical(task.model())}
    folded = fuse(task.model(), task.example())
    made |= {"folded": folded} if folded is not None else {}
    for name, model in made.items():
        for qp in qps if name in forms else ():
            begun = time.perf_counter()
            size, decoded = through_nncodec(floats(model), {"qp": qp, "use_dq": True})
            seconds = time.perf_counter() - begun
            yield {"codec": "NNCodec", "setting": f"{name}, qp {qp}", "bytes": size, "s": seconds}, put(model, decoded)


def cerwu_rows(task: Task, trades: list[float], bins: list[int], calibration: int) -> Iterator[tuple[Row, nn.Module]]:
    """CERWU's, coded by NNCodec."""
    from nn_compression._core import GPTQ  # type: ignore[import-not-found]

    model = canonical(task.model())
    found = hessians(model, task.loss, calibration_batches(task, calibration))
    for count, trade in product(bins, trades):
        begun = time.perf_counter()
        whole, steps = {}, {}
        for name, module in layers_of(model):
            key = f"{name}.weight"
            whole[key], steps[key] = rounded(GPTQ, module.weight, found[name], count, trade)
        size, decoded = through_nncodec(whole, {"use_dq": False})
        beside, vectors = through_nncodec({k: each for k, each in floats(model).items() if k not in whole}, {})
        seconds = time.perf_counter() - begun
        row = {"codec": "CERWU", "setting": f"{count} bins, λ {trade:g}", "s": seconds}
        row["bytes"] = size + beside + _STEP * len(steps)
        yield row, put(model, vectors | {key: each * np.float32(steps[key]) for key, each in decoded.items()})


def through_nncodec(
    tensors: Mapping[str, np.ndarray], settings: Mapping[str, Any]
) -> tuple[int, dict[str, np.ndarray]]:
    """Bytes, and what they decode to; tensors are all of float32, or all of int32."""
    from nncodec.nn import decode, encode  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = {"nonweight_qp": NONWEIGHT_QP, "verbose": False, "results": folder, **settings}
        stream = encode({name: np.ascontiguousarray(each) for name, each in tensors.items()}, settings)
        return len(stream), dict(decode(stream))


def floats(model: nn.Module) -> dict[str, np.ndarray]:
    """What is to be coded: all floating-point numbers but the constants of canonical batch norms."""
    constant = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and is_canonical(module)
        for key in ("running_mean", "running_var")
    }
    state = model.state_dict().items()
    return {name: each.float().numpy() for name, each in state if each.is_floating_point() and name not in constant}


@torch.no_grad()
def put(model: nn.Module, tensors: Mapping[str, np.ndarray]) -> nn.Module:
    """A copy with these tensors, each in the shape of the one it stands for."""
    found = copy.deepcopy(model)
    for name, each in found.state_dict().items():
        if name in tensors:
            each.copy_(torch.as_tensor(np.array(tensors[name])).view(each.shape))
    return found


@torch.no_grad()
def canonical(model: nn.Module) -> nn.Module:
    """A copy whose batch norms have a running mean of 0 and a variance of 1 − ε."""
    found = copy.deepcopy(model).eval()
    for norm in found.modules():
        if isinstance(norm, _BatchNorm) and norm.running_var is not None and norm.running_mean is not None:
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias.sub_(norm.running_mean * scale)
            norm.weight.copy_(scale)
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
    return found


def is_canonical(norm: _BatchNorm) -> bool:
    mean, var = norm.running_mean, norm.running_var
    return mean is not None and var is not None and not bool(mean.any()) and bool((var == 1 - norm.eps).all())


def measured(task: Task, model: nn.Module, test: bool) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        found = dict(task.evaluate(model, task.selection()))
        if test:
            found |= {f"test_{name}": value for name, value in task.evaluate(model, task.test() or ()).items()}
    return found


def saved(rows: list[Row], error: str) -> Iterator[str]:
    """At the error of each row on another codec's front: our bytes against its own. Selection errors make the front."""
    ours = front(front([row for row in rows if row["codec"] == "pack-model"], "error"), error)
    errors, logs = [row[error] for row in ours], [math.log(row["bytes"]) for row in ours]
    for codec in ("NNCodec", "CERWU"):
        for row in front([row for row in rows if row["codec"] == codec], "error"):
            if errors and errors[0] <= row[error] <= errors[-1]:
                own = math.exp(np.interp(row[error], errors, logs))
                theirs = f"{error} {row[error]:.2%}, {codec}, {row['setting']}: {row['bytes']:,}"
                yield f"{theirs}; ours {own:,.0f}, {own / row['bytes'] - 1:+.1%}"


def front(rows: list[Row], error: str) -> list[Row]:
    """The rows that no other one is at least as small and as good as, by rising error."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[error], row["bytes"])):
        if not best or row["bytes"] < best[-1]["bytes"]:
            best.append(row)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the task's factory, instead of the file's")
    parser.add_argument("--slopes", type=float, nargs="*", default=[1e-4, 2e-4, 4e-4, 8e-4])
    parser.add_argument("--qps", type=int, nargs="*", default=[-26, -24, -22, -20, -18, -16])
    parser.add_argument("--forms", nargs="*", default=["as it is", "canonical", "folded"], help="for NNCodec")
    parser.add_argument("--trades", type=float, nargs="*", default=[1e-4, 1e-3, 1e-2], help="CERWU's λ")
    parser.add_argument("--bins", type=int, nargs="*", default=[16, 32, 64], help="of CERWU's grid")
    parser.add_argument("--calibration", type=int, default=8)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    study = load_study(options.study)
    changed = study.task.model_copy(update={"options": {**study.task.options, **options.options}})
    task = load_task(study.model_copy(update={"task": changed}))
    rows = [{"codec": "none", "setting": "float32", "bytes": 4 * sum(p.numel() for p in task.model().parameters())}]
    rows[0] |= measured(task, task.model(), options.test)
    print(rows[0], flush=True)
    for found in (
        nncodec_rows(task, options.qps, options.forms),
        cerwu_rows(task, options.trades, options.bins, options.calibration),
        packed_rows(task, options.slopes, options.calibration),
    ):
        for row, model in available(found):
            rows.append(row | measured(task, model, options.test))
            print(
                {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in rows[-1].items()},
                flush=True,
            )
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(*(line for error in ("error", "test_error") if error in rows[0] for line in saved(rows, error)), sep="\n")


def available(rows: Iterator[tuple[Row, nn.Module]]) -> Iterator[tuple[Row, nn.Module]]:
    """Rows of a codec; none where it is not installed."""
    try:
        yield from rows
    except ImportError as error:
        print(f"Left out, as it cannot be imported: {error}")


if __name__ == "__main__":
    main()
