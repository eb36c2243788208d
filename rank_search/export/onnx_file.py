"""A model in ONNX, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from rank_search.errors import ExportError, to_install
from rank_search.export.compared import WIDENED
from rank_search.export.quiet import quiet, said
from rank_search.export.tracing import Traced
from rank_search.layers import copied

ONNX: Final = "model.onnx"

_TYPES: Final[Mapping[str, torch.dtype]] = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
}


def widened(model: nn.Module) -> nn.Module:
    """The model, in float32 if it is in bfloat16 or float64."""
    tensors = [*model.parameters(), *model.buffers()]
    if not any(each.dtype in WIDENED for each in tensors):
        return model
    return copied(model).float()


def write_onnx(traced: Traced, folder: Path) -> None:
    """An ONNX model.

    Raises:
        ExportError: the packages for it are not installed, or an operator has no ONNX form.
    """
    try:
        with quiet():
            exported = torch.onnx.export(traced.program, dynamo=True, verbose=False)
            if exported is None:
                raise ExportError("torch.onnx gave no model.")
            exported.save(folder / ONNX, external_data=False)
    except ImportError as error:
        raise _not_installed(error) from error
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"The model has no ONNX form: {said(error)}. Use --format pt2.") from error


class OnnxModule(nn.Module):
    """An ONNX model run by onnxruntime, called like the module it came from, with its tensors as flat outputs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [(each.name, each.type) for each in self._session.get_inputs()]

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        given = [*inputs, *named.values()]
        feed = {
            name: each.detach().to(_TYPES.get(kind, each.dtype)).numpy()
            for (name, kind), each in zip(self._inputs, given, strict=True)
        }
        outputs = [torch.from_numpy(each) for each in self._session.run(None, feed)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def read_onnx(folder: Path, manifest: Mapping[str, Any]) -> nn.Module:
    """The ONNX model, run by onnxruntime.

    Raises:
        ExportError: onnxruntime is not installed, or cannot run the model.
    """
    try:
        with quiet():
            return OnnxModule(folder / ONNX)
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:
        raise ExportError(f"onnxruntime cannot run the model: {said(error)}. Use --format pt2.") from error


def _not_installed(error: ImportError) -> ExportError:
    return ExportError(f"ONNX needs more packages ({error}): {to_install('onnx')}.")
