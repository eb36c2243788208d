"""Models of others are exported: what is beside their weights is kept, and a refusal is one line."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.basics import publish
from rank_search.errors import ExportError
from rank_search.export.formats import FORMATS
from rank_search.export.packed_file import read_packed
from rank_search.export.quiet import quiet, said
from rank_search.export.tracing import trace
from rank_search.export.whole import made_whole
from rank_search.programs import is_allowed, name_of, operator_named
from tests.story.test_sizes import Given, exported, searched


class Beside(nn.Module):
    """Tensors that are in no state: a table that is not persistent, a window, a number of forward's own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 4)
        self.register_buffer("table", torch.linspace(0, 1, 16), persistent=False)
        self.window = torch.hann_window(16)

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.window + self.table + torch.tensor([0.5])
        return self.b(torch.relu(self.a(y)))  # type: ignore[no-any-return]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.calls += 1
        return self.b(torch.relu(self.a(x))), None


@pytest.fixture
def narrow_umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o640
    os.umask(before)


def test_tensors_outside_the_state_are_in_the_file(tmp_path: Path) -> None:
    task = Given(Beside(), [torch.randn(16, 16)])
    exported(task, tmp_path, "safetensors")
    packed = read_packed(tmp_path / "s.rsz")
    assert packed.constants
    assert packed.sizes()["constants"] == len(packed.constants)
    with rs.Store.open(tmp_path / "s.sqlite") as store:
        rows = {row.point.key: row for row in store.trials(store.study("s"))}
    bits = {row.measurements["bits"] for row in rows.values()}
    assert 8.0 * len(packed.payload) in bits
    x = torch.randn(3, 16)
    with torch.no_grad():
        torch.testing.assert_close(rs.load(tmp_path / "s.rsz")(x), rs.load(tmp_path / "safetensors")(x))


def test_a_forward_that_changes_a_buffer_is_written_as_it_was(tmp_path: Path) -> None:
    exported(Given(Counter(), [torch.randn(4, 8)]), tmp_path, "safetensors", "pt2")
    coded = rs.decode((tmp_path / "safetensors" / "model.coded").read_bytes())
    for model in (rs.load(tmp_path / "safetensors"), rs.load(tmp_path / "s.rsz")):
        assert torch.equal(model.get_buffer("calls"), coded["calls"])
        assert model(torch.randn(2, 8))[1] is None
        assert torch.equal(model.get_buffer("calls"), coded["calls"] + 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_onnx_of_other_numbers_is_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)).to(dtype)
    manifests = exported(Given(model, [torch.randn(4, 1, 6, 6, dtype=dtype)]), tmp_path, "onnx", "safetensors")
    assert (manifests["onnx"]["widened"], manifests["safetensors"]["widened"]) == (True, False)
    x = torch.randn(2, 1, 6, 6)
    found = FORMATS["onnx"].read(tmp_path / "onnx", {})(x)
    expected = rs.load(tmp_path / "safetensors")(x.to(dtype))
    assert (found.dtype, expected.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(found, expected.float(), rtol=0.05, atol=0.05)


def test_files_have_the_mode_of_the_umask(tmp_path: Path, narrow_umask: int) -> None:
    exported(Given(Counter(), [torch.randn(4, 8)]), tmp_path, "safetensors", "pt2")
    rs.unpack_file(tmp_path / "s.rsz", tmp_path / "unpacked")
    files = [path for name in ("safetensors", "pt2", "unpacked") for path in (tmp_path / name).iterdir()]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (*files, tmp_path / "s.rsz")}
    assert modes == dict.fromkeys(modes, narrow_umask)
    assert len(modes) == 6


def overtaken(target: Path, kind: str) -> None:
    """Somebody else is faster."""
    with made_whole(target) as made:
        (made / "model").write_bytes(b"ours")
        target.mkdir() if kind == "folder" else target.write_bytes(b"theirs")
        publish(made if kind == "folder" else made / "model", target)


def test_what_came_in_the_meantime_is_not_written_over(tmp_path: Path) -> None:
    for kind in ("file", "folder"):
        with pytest.raises(ExportError, match="already"):
            overtaken(tmp_path / kind, kind)
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert list((tmp_path / "folder").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


def test_a_link_that_leads_nowhere_is_something_that_is_there(tmp_path: Path) -> None:
    task = Given(Counter(), [torch.randn(4, 8)])
    store, number = searched(task, tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with rs.Store.open(store) as opened, pytest.raises(ExportError, match="already"):
        rs.export_trial(opened, "s", number, tmp_path / "link", task=task)


# ---- operators -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["__and__.Tensor", "__or__.Tensor", "__xor__.Scalar", "__lshift__.Tensor", "rand.default"]
)
def test_operators_of_tensors_have_a_name(name: str) -> None:
    operation, overload = name.split(".")
    found = getattr(getattr(torch.ops.aten, operation), overload)
    assert operator_named(name_of(found)) is found


@pytest.mark.parametrize(
    "name",
    [
        *("_unsafe_index.Tensor", "_reshape_alias.default", "from_file.default", "set_.source_Tensor"),
        *("resize_.default", "_cudnn_rnn.default", "relu.out", "__and__.bool"),
    ],
)
def test_operators_that_trust_their_arguments_have_none(name: str) -> None:
    operation, overload = name.split(".")
    assert not is_allowed(getattr(getattr(torch.ops.aten, operation), overload))


def test_powers_of_sizes_are_bounded() -> None:
    power = operator_named("pow")
    assert power(3, 4) == 81
    assert power(9, 0.5) == 3.0
    with pytest.raises(ValueError, match="exponents up to 64"):
        power(10, 10**10)


# ---- noise -----------------------------------------------------------------------------------------------


class Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        print("looking")
        return x if float(x.sum()) > 0 else -x


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.a(x).relu()
        return self.o(h if mask is None else h * mask)  # type: ignore[no-any-return]


def test_a_model_that_cannot_be_traced_is_one_line(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ExportError, match="cannot trace the model") as caught:
        trace(Looks(), torch.ones(1, 2))
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_optional_input_prints_nothing(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    x = torch.randn(32, 16)
    rs.pack_model(Optional().eval(), [x], example=x[:1]).write(tmp_path / "small.rsz")
    assert capfd.readouterr() == ("", "")
    assert rs.load(tmp_path / "small.rsz")(x).shape == (32, 4)


def test_an_error_is_its_first_line_without_colours() -> None:
    assert said(RuntimeError("\n \x1b[31mGuard failed\x1b[0m.\n\ngraph():\n  %x")) == "RuntimeError: Guard failed"
    assert said(KeyError()) == "KeyError"
    assert len(said(ValueError("x" * 10_000))) < 300


def test_quiet_ends(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    logger = logging.getLogger("torch.export")
    with quiet():
        logger.critical("inside")
    logger.critical("outside")
    assert [record.message for record in caplog.records] == ["outside"]
