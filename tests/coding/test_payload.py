from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from rank_search.coding import Grid, decode, encode
from rank_search.coding.payload import decode_each
from rank_search.coding.varint import Wire
from rank_search.errors import TrialError

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
exponents = st.integers(-160, 80)
GOLDEN = Path(__file__).parent / "golden"


def grid(*marks: int, modes: int = 2, group: str = "") -> Grid:
    """One step for the tensor, or one for each index of its first mode."""
    return Grid(torch.tensor(marks, dtype=torch.int32).reshape(-1, *[1] * (modes - 1)), group=group)


def same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)


@settings(deadline=None)
@given(shapes, exponents, st.sampled_from([0, 1, 10, 1000, 32767]), st.integers(0, 1000))
def test_multiples_of_a_step_come_back_exactly(shape: tuple[int, ...], exponent: int, largest: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(-largest, largest + 1, shape, generator=generator)
    step = Grid(torch.tensor([exponent], dtype=torch.int32))
    weight = step.values(whole, torch.float32)
    assert same(decode(encode({"w": weight}, {"w": step}))["w"], weight)


@pytest.mark.parametrize(
    "whole", [[], [0], [5], [0, 0, 0], [-32767, 32767], [1] * 50, [32767] * 3, [0] * 99 + [-32767]]
)
def test_corner_cases_come_back_exactly(whole: list[int]) -> None:
    weight = torch.tensor(whole, dtype=torch.float32) * 0.25
    assert same(decode(encode({"w": weight}, {"w": grid(-16, modes=1)}))["w"], weight)


def test_other_weights_come_back_rounded_to_the_step() -> None:
    weight, tenth = torch.randn(40, 30), grid(-27)
    decoded = decode(encode({"w": weight}, {"w": tenth}))["w"]
    assert float((decoded - weight).abs().max()) <= float(tenth.steps()) * 0.50001
    assert torch.equal(decoded, tenth.values(tenth.round(weight), torch.float32))
    assert encode({"w": decoded}, {"w": tenth}) == encode({"w": weight}, {"w": tenth})


@settings(deadline=None)
@given(
    st.lists(exponents, min_size=3, max_size=3), st.booleans(), st.sampled_from([(3, 2, 3, 3), (3, 1, 1, 4), (3, 5)])
)
def test_steps_for_channels_and_frequencies_come_back(marks: list[int], fine: bool, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2.0 ** (min(marks) / 8 + 2)
    one = Grid(torch.tensor(marks, dtype=torch.int32).reshape(-1, *[1] * (len(shape) - 1)), frequencies=fine)
    coded = encode({"w": weight, "v": weight + 0}, {"w": one, "v": grid(min(marks), modes=len(shape))})
    expected = one.values(one.round(weight), torch.float32)
    assert same(decode(coded)["w"], expected)


def test_tensors_of_one_group_share_what_the_coder_learns() -> None:
    torch.manual_seed(0)
    state = {f"t{place}": torch.randn(6, 7) for place in range(8)}
    alone = encode(state, {name: grid(-8) for name in state})
    together = encode(state, {name: grid(-8, group="g") for name in state})
    assert len(together) < len(alone)
    assert all(torch.equal(one, decode(alone)[name]) for name, one in decode(together).items())


def test_constant_tensors_cost_some_bytes() -> None:
    state = {"mean": torch.zeros(500), "var": torch.full((500,), 1 - 1e-5), "w": torch.full((50, 50), 3.0)}
    coded = encode(state, {"w": grid(0)})
    assert len(coded) < 60
    assert all(same(tensor, decode(coded)[name]) for name, tensor in state.items())


def test_the_header_of_a_small_network_is_small() -> None:
    torch.manual_seed(0)
    sizes = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
    state = {f"{name}.weight": torch.zeros(size) for name, size in sizes.items()}
    state |= {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}
    assert len(encode(state, {name: grid(-8, modes=tensor.dim()) for name, tensor in state.items()})) < 110


def test_values_of_too_wide_a_range_are_stored_uncoded() -> None:
    weight = torch.tensor([[1e-3, 1e6]])
    assert same(decode(encode({"w": weight}, {"w": grid(-80)}))["w"], weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_coded(bad: float) -> None:
    with pytest.raises(TrialError, match="w holds NaN or infinity"):
        encode({"w": torch.tensor([[bad, 1.0]])}, {"w": grid(-27)})


def test_a_grid_fits_its_tensor() -> None:
    with pytest.raises(TrialError, match=r"does not fit its torch.float32 tensor of shape \(2, 2\)"):
        encode({"w": torch.ones(2, 2)}, {"w": grid(1, 2, 3)})
    with pytest.raises(TrialError, match="has a zero byte"):
        encode({"w\0": torch.ones(2)})


@pytest.mark.parametrize("version", ["rsc1", "rsc2"])
def test_a_golden_file_of_each_version_stays_readable(version: str) -> None:
    decoded = decode((GOLDEN / f"{version}.coded").read_bytes())
    expected = load_file(GOLDEN / f"{version}.safetensors")
    assert set(decoded) == set(expected)
    assert all(same(decoded[name], tensor) for name, tensor in expected.items())


dtypes = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
)


@given(st.lists(st.tuples(shapes, dtypes), max_size=5), st.booleans())
def test_tensors_without_steps_come_back_bit_for_bit(
    given_: list[tuple[tuple[int, ...], torch.dtype]], loose: bool
) -> None:
    state = {f"t{place}": (100 * torch.rand(shape)).to(dtype) for place, (shape, dtype) in enumerate(given_)}
    if loose:
        state = {name: tensor.flip(0) if tensor.dim() else tensor for name, tensor in state.items()}
    decoded = decode(encode(state))
    assert list(decoded) == list(state)
    assert all(same(decoded[name], state[name]) for name in state)


def test_nan_survives_where_nothing_is_rounded() -> None:
    assert decode(encode({"w": torch.tensor([float("nan")])}))["w"].isnan().all()


@pytest.mark.parametrize(
    ("values", "exact"),
    [([0.0, 1.0, -3.5], False), ([1e-6, 1.0], True), ([7e4], True), ([float("inf")], True), ([0.1, 0.3], False)],
)
def test_vectors_take_half_precision_where_that_is_safe(values: list[float], exact: bool) -> None:
    vector = torch.tensor(values)
    decoded = decode(encode({"b": vector}, {}))["b"]
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, vector if exact else vector.half().float())


def test_matrices_without_a_step_stay_exact() -> None:
    matrix = torch.randn(3, 3)
    assert same(decode(encode({"m": matrix}, {}))["m"], matrix)


@pytest.mark.parametrize("value", [0, -128, 127, 128, 70_000, 2**40, -(2**40)])
def test_integers_take_the_narrowest_type_that_holds_them(value: int) -> None:
    counter = torch.tensor(value)
    assert same(decode(encode({"n": counter}))["n"], counter)
    assert len(encode({"n": torch.full((1000,), 5)})) < 1000 + 200


def test_a_shared_tensor_is_coded_once_and_shared_again() -> None:
    weight = torch.randn(50, 50)
    alone, shared = encode({"a": weight}, {"a": grid(-27)}), encode({"a": weight, "b": weight}, {"a": grid(-27)})
    assert len(shared) < len(alone) + 40
    decoded = decode(shared)
    assert decoded["a"] is decoded["b"]


def test_a_model_without_steps_costs_32_bits_a_number() -> None:
    state = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Linear(100, 100)).state_dict()
    numbers = sum(tensor.numel() for tensor in state.values())
    assert 32 * numbers <= 8 * len(encode(state)) + 32 * 5 * 32 <= 32 * numbers + 32 * 5 * 32 + 8 * 200


def test_a_laplace_model_costs_its_entropy_and_little_more() -> None:
    torch.manual_seed(0)
    weight = torch.distributions.Laplace(0.0, 1.0).sample((200, 150))
    whole = (weight / 0.5).round()
    _, counts = whole.unique(return_counts=True)
    share = counts / counts.sum()
    entropy = float(-(share * share.log2()).sum()) * weight.numel()
    assert 8 * len(encode({"layer.weight": weight}, {"layer.weight": grid(-8)})) <= 1.01 * entropy + 8 * 50


# ---- damage --------------------------------------------------------------------------------------------


@cache
def coded() -> bytes:
    torch.manual_seed(0)
    state = {"w": torch.randn(20, 10), "b": torch.randn(10), "n": torch.tensor(3), "v": torch.randn(80, 70)}
    return encode(state, {"w": grid(-27), "v": grid(*range(-80, 0))})


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_wrong_bit_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(coded())
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[place // 8] ^= 1 << place % 8
    with pytest.raises(TrialError):
        decode(bytes(whole))


@given(st.data())
@settings(deadline=None)
def test_a_cut_or_longer_string_is_noticed(data: st.DataObject) -> None:
    whole = coded()
    with pytest.raises(TrialError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(TrialError):
        decode(whole + data.draw(st.binary(min_size=1, max_size=8)))


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(TrialError):
        decode(data)


def sealed(header: bytes, body: bytes = b"", check: int = 0) -> bytes:
    """A byte string whose checksum holds, with this header."""
    wire = Wire()
    wire.put(2 * len(header))
    content = struct.pack("<I", check) + wire.written() + header + body
    return b"RSC2" + struct.pack("<I", zlib.crc32(content)) + content


NO = b"\xff\xff"
"""A stream of the adaptive coder in which every answer is no, so that every number is 0."""


def header(*, size: int = 2, form: int = 2, kind: int = 2, after: bytes = b"\0\0", name: bytes = b"w\0") -> bytes:
    """One tensor of one mode: its name, form, type, number of modes, size, and what follows."""
    wire = Wire()
    wire.put(size)
    return b"\1" + name + bytes([form, kind, 1]) + wire.written() + after


def test_the_forger_can_write_a_true_one() -> None:
    assert decode(sealed(header(), struct.pack("<2f", 1, 2)))["w"].tolist() == [1, 2]
    assert decode(sealed(header(form=18), struct.pack("<f", 3)))["w"].tolist() == [3, 3]
    constant = zlib.crc32(struct.pack("<2i", 5, 5))
    assert decode(sealed(header(form=32, after=b"\0\0\1\0\x0a\2"), NO, constant))["w"].tolist() == [5, 5]


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        (b"", "0 are there"),
        (header(name=b"w"), "makes no sense"),
        (header(name=b"\xff\0"), "makes no sense"),
        (header(kind=12), "makes no sense"),
        (header(form=15), "makes no sense"),
        (header(form=40), "form 40"),
        (header(form=48), "makes no sense"),
        (header(size=10**6), "4000000 bytes are announced, 8 are there"),
        (header(size=10**12), "at most"),
        (header(size=10**12, form=18), "at most"),
        (header(size=1 << 50), "at most"),
        (header(after=b""), "announced"),
        (header(after=b"\0\0\0"), "followed by more"),
        (header(after=b"\0\x09"), "9 bytes are announced"),
        (header(form=32, after=b"\0\0\0\0"), "cannot be coded"),
        (header(form=33, after=b"\0\0\1\0\0\0"), "cannot be coded"),
        (header(form=32, kind=10, after=b"\0\0\1\0\0\0"), "cannot be coded"),
        (header(form=32, after=b"\0\0\1\6\0\0"), "way 6"),
        (header(form=32, after=b"\0\0\1\1\0\1\3\2"), "prior reaches"),
        (header(form=32, size=10**7, after=b"\0\0\1\5\0\2"), "at most 524288"),
        (header(form=32, size=10**7, after=b"\1\0\1\0\0\0"), "at most 524288"),
        (header(form=32, after=b"\0\0\1\0\0\2"), "do not match their checksum"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(lie: bytes, complaint: str) -> None:
    with pytest.raises(TrialError, match=complaint):
        decode(sealed(lie, NO + b"\xff" * 6))


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_header_with_a_right_checksum_is_an_error_or_a_model(data: st.DataObject) -> None:
    whole = bytearray(coded())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(12, len(whole) - 1))] = data.draw(st.integers(0, 255))
    check = bytes(whole[8:12])
    forged = b"RSC2" + struct.pack("<I", zlib.crc32(check + whole[12:])) + check + bytes(whole[12:])
    with suppress(TrialError):
        decode(forged, largest=10**6)


def test_another_version_is_named() -> None:
    with pytest.raises(TrialError, match="has version b'RSC3'; this build reads RSC1 and RSC2"):
        decode(b"RSC3" + coded()[4:])


def test_a_type_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(TrialError, match=r"q is torch\.float8_e5m2"):
        encode({"q": torch.ones(2).to(torch.float8_e5m2)})


def test_decoding_tensor_by_tensor_gives_the_same_and_finds_damage_by_the_end() -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 30)
    state = {"a": weight, "kept": torch.arange(5.0), "again": weight, "b": torch.randn(4, 4)}
    grids = {name: Grid.nearest(torch.full((1, 1), 0.25)) for name in ("a", "b")}
    data = encode(state, grids)
    each = decode_each(data)
    assert next(each)[0] == "kept"  # what is kept comes before anything is decoded
    whole = decode(data)
    assert {name: tensor.tolist() for name, tensor in decode_each(data)} == {k: v.tolist() for k, v in whole.items()}
    assert list(whole) == list(state)
    wrong = bytearray(data)
    wrong[8] ^= 1  # the checksum of the numbers, under a right checksum of the whole
    wrong[4:8] = zlib.crc32(bytes(wrong[8:])).to_bytes(4, "little")
    with pytest.raises(TrialError, match="checksum"):
        list(decode_each(bytes(wrong)))
