"""Recurrent networks and Transformers through the whole search: accounted for, searched, exported and read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.layers import Opened, count_params
from rank_search.layers.costs import count_macs

X = torch.randint(1, 20, (32, 7), generator=torch.Generator().manual_seed(0))


class Tagger(nn.Module):
    """Tokens through two kinds of recurrent networks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 12, bidirectional=True, batch_first=True)
        self.gru, self.out = nn.GRU(24, 12), nn.Linear(12, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        self.lstm.flatten_parameters()
        steps, _ = self.lstm(self.tokens(tokens))
        steps, _ = self.gru(steps.transpose(0, 1))
        return self.out(steps[-1])  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Tokens through PyTorch's own Transformer encoder, token 0 being padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens = nn.Embedding(20, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.out = nn.Linear(16, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.encoder(self.tokens(tokens), src_key_padding_mask=tokens == 0)[:, 0])  # type: ignore[no-any-return]


def compressed(model: nn.Module, x: Tensor, folder: Path, trials: int = 5) -> rs.Compressed:
    with torch.no_grad():
        batch = (x, model(x).argmax(1))
    return rs.compress(
        model,
        train=[batch],
        selection=[batch],
        store=folder / "s.sqlite",
        trials=trials,
        training={"epochs": 1},
        search={"objectives": ["error", "macs"]},
    )


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    ("make", "formats", "within"),
    [
        (Tagger, ["safetensors"], {"lstm.recurrent_0_reverse", "gru.input_0"}),
        (Encoder, ["safetensors", "onnx"], {f"encoder.layers.1.self_attn.{n}" for n in "qkvo"}),
    ],
)
def test_they_are_accounted_for_searched_exported_and_read_back(
    make: Callable[[], nn.Module],
    formats: list[str],
    within: set[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, x = make().eval(), X[:, :4].clone()
    x[3:, 3:] = 0
    rows = rs.layers(model, x[:1])
    assert within < {row.layer for row in rows if not row.skipped}
    assert sum(row.params for row in rows) == count_params(model)
    found = compressed(model, x, tmp_path)
    assert found.dense["macs"] == rows.total.macs
    assert "cannot be exported" not in caplog.text
    least = min(found.front, key=lambda trial: trial.measurements["macs"])
    small = found.model(least.number)
    assert [each for each in small.modules() if isinstance(each, Opened)]
    assert least.measurements["macs"] == count_macs(small, [x[:1]]) < found.dense["macs"]
    for format in formats:
        manifest = found.export(least.number, tmp_path / format, format)
        assert manifest["format"] == format
    with torch.no_grad():
        torch.testing.assert_close(rs.load(tmp_path / "safetensors")(x[:1]), small(x[:1]))


def test_a_network_trained_over_parameterized_is_closed_again(tmp_path: Path) -> None:
    model = Encoder().eval()
    with torch.no_grad():
        batch = (X, model(X).argmax(1))
    options = {
        "trials": 2,
        "training": {"epochs": 0},
        "method": "overparameterized",
        "overparameterized": {"epochs": 1},
    }
    found = rs.compress(model, train=[batch], selection=[batch], store=tmp_path / "s.sqlite", **options)  # type: ignore[arg-type]
    assert found.front
    dense = next(trial for trial in found.front if not any(not c.is_dense for c in trial.point.layers.values()))
    closed = found.model(dense.number)
    assert type(closed.get_submodule("encoder.layers.0.self_attn")) is nn.MultiheadAttention
    assert not torch.equal(closed(X), model(X))
