"""A trained network packed without training, beside NNCodec (ISO/IEC 15938-17): bytes, and errors of decoded weights.

Run: python -m benchmarks.post_training studies/cifar_resnet.toml [--options '{"data": "…"}'] [--slopes 1e-4 4e-4]
     [--qps -24 -20 -16] [--calibration 8] [--test] [--out rows.json]

NNCodec is the package `nncodec` of PyPI; where it cannot be imported, our rows are printed alone. It codes the network
in three forms: as it is; with batch norms in canonical form, y = a·x + b, whose two other vectors are constants (what
its own folding comes to); and with batch norms folded into the layers. Trellis quantization (`use_dq`) is on, whatever
needs training is off, and vectors take `nonweight_qp` −36, which is as good as its default −75 and smaller. Bytes are
those of NNCodec's bit stream, and of our coded payload; a `.rsz` file has the traced graph beside it. Every error is
that of decoded weights. Choose points by the selection data, and look at the test data (`--test`) once.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rank_search.export import pack
from rank_search.layers import fuse
from rank_search.study import load_study, load_task
from rank_search.tasks import Task, seeded

NONWEIGHT_QP: Final = -36

Row = dict[str, Any]


def packed_rows(task: Task, slopes: list[float], calibration: int) -> Iterator[tuple[Row, nn.Module]]:
    """Our own."""
    with seeded(0):
        batches = list(islice(task.training(), calibration))
    for slope in slopes:
        begun = time.perf_counter()
        found = pack(task.model(), task.loss, batches, task.example(), slope)
        seconds = time.perf_counter() - begun
        yield {"codec": "pack-model", "setting": f"slope {slope:g}", "bytes": found.size, "s": seconds}, found.model


def nncodec_rows(task: Task, qps: list[int]) -> Iterator[tuple[Row, nn.Module]]:
    """NNCodec's, of each form of the network."""
    try:
        from nncodec.nn import decode, encode  # type: ignore[import-not-found]
    except ImportError as error:
        print(f"NNCodec cannot be imported ({error}); pip install nncodec. Our rows alone:")
        return
    folded = fuse(task.model(), task.example())
    forms = {"as it is": task.model(), "canonical": canonical(task.model())}
    for name, model in (forms | ({"folded": folded} if folded is not None else {})).items():
        for qp in qps:
            begun = time.perf_counter()
            size, decoded = nncodec(model, qp, encode, decode)
            seconds = time.perf_counter() - begun
            yield {"codec": "NNCodec", "setting": f"{name}, qp {qp}", "bytes": size, "s": seconds}, decoded


def nncodec(model: nn.Module, qp: int, encode: Callable[..., Any], decode: Callable[..., Any]) -> tuple[int, nn.Module]:
    """Bytes, and the model with the decoded weights."""
    state = {name: each.numpy() for name, each in model.state_dict().items() if each.is_floating_point()}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = {"qp": qp, "nonweight_qp": NONWEIGHT_QP, "use_dq": True, "verbose": False, "results": folder}
        stream = encode({name: np.ascontiguousarray(each, np.float32) for name, each in state.items()}, settings)
        found = decode(stream)
    decoded = copy.deepcopy(model)
    decoded.load_state_dict({name: torch.as_tensor(np.array(each)) for name, each in found.items()}, strict=False)
    return len(stream), decoded


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


def measured(task: Task, model: nn.Module, test: bool) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        found = dict(task.evaluate(model, task.selection()))
        if test:
            found |= {f"test_{name}": value for name, value in task.evaluate(model, task.test() or ()).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--options", type=json.loads, default={}, help="of the task's factory, instead of the file's")
    parser.add_argument("--slopes", type=float, nargs="*", default=[1e-4, 2e-4, 4e-4, 8e-4])
    parser.add_argument("--qps", type=int, nargs="*", default=[-26, -24, -22, -20, -18, -16])
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
    for found in (nncodec_rows(task, options.qps), packed_rows(task, options.slopes, options.calibration)):
        for row, model in found:
            rows.append(row | measured(task, model, options.test))
            print({key: f"{value:.4g}" if isinstance(value, float) else value for key, value in rows[-1].items()})
            if options.out:
                options.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
