"""A front member becomes one file of exactly the bytes that were counted; damaged and hostile files are refused."""

from __future__ import annotations

import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rank_search as rs
from rank_search.coding import Wire, encode
from rank_search.errors import ExportError
from rank_search.export import short_manifest
from rank_search.export.graph import to_json
from rank_search.export.packed_file import MAGIC, PREAMBLE, Packed, read_packed, write_packed
from rank_search.export.tracing import trace
from rank_search.study import problem_of
from tests.story.small import Command, Small
from tests.story.test_verbs import rows_of

GOLDEN = [[-0.11787682771682739, 0.026123523712158203]]
BATCH = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def error_of(model: nn.Module, small: Small) -> float:
    with rs.Store.open(small.store) as store:
        problem = problem_of(store.study("stripes"))
    with torch.no_grad():
        return float(problem.task.evaluate(model, problem.task.selection())["error"])


def test_every_member_is_packed_loaded_and_unpacked(small: Small, tmp_path: Path, command: Command) -> None:
    for row in rows_of(command, "front", small.store, "stripes")[-2:]:
        path, folder = tmp_path / f"{row['trial']}.rsz", tmp_path / f"{row['trial']}"
        answer = command.fine("pack", small.store, "stripes", row["trial"], "-o", path)
        (shown,) = rows_of(command, "show", small.store, "stripes", row["trial"])
        packed = read_packed(path)
        assert 8 * len(packed.payload) == shown["measurements"]["bits"]
        assert sum(packed.sizes().values()) == path.stat().st_size
        assert f"payload {len(packed.payload):,}" in answer.out
        assert "preamble 1" in answer.out
        assert "verified: bits" in answer.out
        assert (packed.manifest["study"], packed.manifest["trial"]) == ("stripes", row["trial"])
        assert error_of(rs.load(path), small) == shown["measurements"]["error"]
        command.fine("unpack", path, "-o", folder)
        assert error_of(rs.load(folder), small) == shown["measurements"]["error"]
        assert (folder / "model.coded").read_bytes() == packed.payload
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


def test_nothing_is_written_over_or_left(small: Small, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"mine")
    with rs.Store.open(small.store) as store:
        number = store.front(store.study("stripes"))[-1].number
        with pytest.raises(ExportError, match="already exists"):
            rs.pack_trial(store, "stripes", number, tmp_path / "there")
        with pytest.raises(ExportError, match="could not be made"):
            rs.pack_trial(store, "stripes", number, tmp_path / "there" / "in")
        rs.pack_trial(store, "stripes", number, tmp_path / "new.rsz")
    with pytest.raises(ExportError, match="already exists"):
        rs.unpack_file(tmp_path / "new.rsz", tmp_path / "there")
    assert {path.name for path in tmp_path.iterdir()} == {"there", "new.rsz"}
    assert (tmp_path / "there").read_bytes() == b"mine"


# ---- damage ----------------------------------------------------------------------------------------------


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()


@cache
def parts() -> Packed:
    graph, _ = to_json(trace(network(), BATCH).program)
    return Packed({"graph": graph, "measurements": {"error": 0.5}}, encode(network().state_dict()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "model.rsz"
    write_packed(parts(), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "model.rsz"


def test_a_whole_file_is_the_model(whole: bytes, place: Path) -> None:
    place.write_bytes(whole)
    assert torch.allclose(rs.load(place)(BATCH), network()(BATCH))


def test_a_file_that_claims_more_numbers_than_allowed_is_refused(whole: bytes, place: Path) -> None:
    """Few bytes may stand for many equal numbers; here 37 are claimed."""
    place.write_bytes(whole)
    assert rs.load(place, largest=37)
    with pytest.raises(ExportError, match="claims 37 numbers; at most 36 are read"):
        rs.load(place, largest=36)
    with pytest.raises(ExportError, match="claims 37 numbers; at most 36 are read"):
        rs.unpack_file(place, place.with_name("made"), largest=36)
    assert not place.with_name("made").exists()


def test_a_golden_file_of_version_1_stays_readable() -> None:
    path = Path(__file__).parent / "golden" / "linear-1.rsz"
    assert read_packed(path).payload[:4] == b"RSC2"
    assert torch.allclose(rs.load(path)(torch.ones(1, 4)), torch.tensor(GOLDEN), atol=1e-6)


def test_a_golden_file_of_version_2_stays_readable() -> None:
    path = Path(__file__).parent / "golden" / "linear-2.rsz"
    assert read_packed(path).payload[:4] == b"RSC2"
    assert torch.allclose(rs.load(path)(BATCH), network()(BATCH))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_one_wrong_bit_is_noticed(whole: bytes, place: Path, data: st.DataObject) -> None:
    changed = bytearray(whole)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed[bit // 8] ^= 1 << bit % 8
    place.write_bytes(changed)
    with pytest.raises(ExportError):
        rs.load(place)


@given(data=st.data())
@settings(deadline=None)
def test_a_cut_or_longer_file_is_noticed(whole: bytes, place: Path, data: st.DataObject) -> None:
    for changed in (whole[: data.draw(st.integers(0, len(whole) - 1))], whole + data.draw(st.binary(min_size=1))):
        place.write_bytes(changed)
        with pytest.raises(ExportError):
            rs.load(place)


def forged(
    manifest: bytes, payload: bytes = b"", lengths: tuple[int, int, int] | None = None, version: int = 1
) -> bytes:
    """A file whose checksum holds."""
    preamble = PREAMBLE.pack(MAGIC, version, 0, *(lengths or (len(manifest), len(payload), 0)))
    return preamble + struct.pack("<I", zlib.crc32(preamble + manifest)) + manifest + payload


def packed_json(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def second(manifest: object, payload: bytes = b"") -> bytes:
    """A file of version 2 whose checksum holds, with any JSON as its manifest."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, short_manifest._DICTIONARY)
    content = deflater.compress(json.dumps(manifest).encode()) + deflater.flush()
    wire = Wire()
    wire.put(len(content))
    wire.put(len(payload))
    rest = wire.written() + content + payload
    return MAGIC[:4] + b"\x02" + struct.pack("<I", zlib.crc32(rest)) + rest


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "Is it another file"),
        (b"PK" * 50, "Is it another file"),
        (forged(b"", version=3), "version 3"),
        (MAGIC[:4] + b"\x07" + bytes(20), "version 7"),
        (MAGIC[:4] + b"\x02" + bytes(4) + b"\xff" * 20, "lengths cannot be read"),
        (MAGIC[:4] + b"\x02" + bytes(4) + b"\xff\x7f\x00", "it says that it has at least"),
        (second({"nothing": 1}), "no graph"),
        (forged(b"", lengths=(0, 1 << 60, 0)), "and has 36"),
        (forged(b"", lengths=((1 << 32) - 1, 0, 0)), "and has 36"),
        (forged(b"none"), "manifest cannot be read"),
        (forged(packed_json([])), "no graph"),
        (forged(zlib.compress(b"[" * 100_000)), "manifest cannot be read"),
        (forged(zlib.compress(b" " * (1 << 27), 9)), "too long"),
        (forged(packed_json({"graph": {}})), "checksum of its weights"),
    ],
)
def test_a_hostile_file_is_refused(content: bytes, complaint: str, place: Path) -> None:
    place.write_bytes(content)
    with pytest.raises(ExportError, match=complaint):
        rs.load(place)


@pytest.mark.parametrize(
    "graph",
    [
        3,
        {},
        {"nodes": 3},
        {"nodes": [["0.weight"], [["5"]]]},
        {"nodes": [["0.weight"], ["os.system", ["1"]], [["1"]]]},
        {"nodes": [["no such tensor"], [["1"]]]},
    ],
)
def test_a_graph_that_lies_is_refused(graph: object, place: Path) -> None:
    place.write_bytes(second({"graph": graph}, parts().payload))
    with pytest.raises(ExportError, match=r"damaged|operators that make tensors"):
        rs.load(place)


def test_what_is_known_of_a_trial_is_left_out_of_a_small_file(tmp_path: Path) -> None:
    about = {"measurements": {f"measured {number}": number / 7 for number in range(200)}, "study": "s", "trial": 3}
    small, large = (encode({"0": torch.randn(size)}) for size in (40, 40_000))
    for place, payload in enumerate((small, large)):
        write_packed(Packed({**parts().manifest, **about}, payload), tmp_path / f"{place}")
    first, second = (read_packed(tmp_path / name).manifest for name in "01")
    assert (first["study"], first["trial"]) == ("s", 3)
    assert "measurements" not in first
    assert second["measurements"] == about["measurements"]


def test_a_network_of_few_weights_is_in_a_file_of_few_bytes(tmp_path: Path) -> None:
    rs.pack_model(network(), example=BATCH[:1], slope=1e-3).write(tmp_path / "small.rsz")
    sizes = read_packed(tmp_path / "small.rsz").sizes()
    assert sizes["preamble"] + sizes["manifest"] <= 110


def test_weights_that_are_none_are_refused(place: Path) -> None:
    place.unlink(missing_ok=True)
    write_packed(Packed(parts().manifest, b"RSC2 or so"), place)
    with pytest.raises(ExportError, match="cannot"):
        rs.load(place)


def test_constants_beside_the_state_are_kept(place: Path) -> None:
    place.unlink(missing_ok=True)
    state = network().state_dict()
    write_packed(
        Packed(
            parts().manifest,
            encode({k: v for k, v in state.items() if "2" not in k}),
            encode({k: v for k, v in state.items() if "2" in k}),
        ),
        place,
    )
    assert torch.allclose(rs.load(place)(BATCH), network()(BATCH))
