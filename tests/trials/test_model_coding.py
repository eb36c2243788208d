from __future__ import annotations

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.errors import TrialError
from rank_search.trials import decode, encode

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
steps = st.floats(1e-6, 1e3).map(lambda step: float(np.float32(step)))


def same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)


@given(shapes, steps, st.sampled_from([0, 1, 10, 1000, 32767]), st.integers(0, 1000))
def test_multiples_of_a_step_come_back_exactly(shape: tuple[int, ...], step: float, largest: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(-largest, largest + 1, shape, generator=generator)
    weight = whole.float() * step
    assert same(decode(encode({"w": weight}, {"w": step}))["w"], weight)


@pytest.mark.parametrize("whole", [[], [0], [5], [0, 0, 0], [-32767, 32767], [1] * 50, [32767] * 3])
def test_corner_cases_come_back_exactly(whole: list[int]) -> None:
    weight = torch.tensor(whole, dtype=torch.float32) * 0.25
    assert same(decode(encode({"w": weight}, {"w": 0.25}))["w"], weight)


def test_other_weights_come_back_rounded_to_the_step() -> None:
    weight = torch.randn(40, 30)
    decoded = decode(encode({"w": weight}, {"w": 0.1}))["w"]
    assert float((decoded - weight).abs().max()) <= 0.05001
    assert encode({"w": decoded}, {"w": 0.1}) == encode({"w": weight}, {"w": 0.1})


def test_too_wide_a_range_is_kept_as_it_is() -> None:
    weight = torch.tensor([[1e-3, 1e6]])
    assert same(decode(encode({"w": weight}, {"w": 1e-3}))["w"], weight)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_coded(bad: float) -> None:
    with pytest.raises(TrialError, match="w holds NaN or infinity"):
        encode({"w": torch.tensor([[bad, 1.0]])}, {"w": 0.1})


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf"), 1e-60])
def test_a_step_is_positive(step: float) -> None:
    with pytest.raises(TrialError, match="step is a positive number"):
        encode({"w": torch.ones(2, 2)}, {"w": step})


dtypes = st.sampled_from(
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
)


@given(st.lists(st.tuples(shapes, dtypes), max_size=5), st.booleans())
def test_without_steps_everything_comes_back_bit_for_bit(
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
    alone, shared = encode({"a": weight}, {"a": 0.1}), encode({"a": weight, "b": weight}, {"a": 0.1})
    assert len(shared) < len(alone) + 40
    decoded = decode(shared)
    assert decoded["a"] is decoded["b"]


def test_a_model_without_steps_costs_32_bits_a_number() -> None:
    state = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Linear(100, 100)).state_dict()
    numbers = sum(tensor.numel() for tensor in state.values())
    assert 32 * numbers <= 8 * len(encode(state)) + 32 <= 32 * numbers + 8 * 400


def test_a_laplace_model_costs_its_entropy_and_little_more() -> None:
    torch.manual_seed(0)
    weight = torch.distributions.Laplace(0.0, 1.0).sample((200, 150))
    step = 0.5
    whole = (weight / step).round()
    _, counts = whole.unique(return_counts=True)
    share = counts / counts.sum()
    entropy = float(-(share * share.log2()).sum()) * weight.numel()
    assert 8 * len(encode({"layer.weight": weight}, {"layer.weight": step})) <= 1.01 * entropy + 8 * 150


# ---- damage --------------------------------------------------------------------------------------------


def coded() -> bytes:
    torch.manual_seed(0)
    return encode({"w": torch.randn(20, 10), "b": torch.randn(10), "n": torch.tensor(3)}, {"w": 0.1})


@given(st.data())
@settings(max_examples=200)
def test_one_wrong_bit_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(coded())
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[place // 8] ^= 1 << place % 8
    with pytest.raises(TrialError):
        decode(bytes(whole))


@given(st.data())
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


def forged(header: object, body: bytes = b"") -> bytes:
    """A byte string whose checksum holds, with this header."""
    packed = zlib.compress(json.dumps(header).encode())
    content = struct.pack("<I", len(packed)) + packed + body
    return b"RSC1" + struct.pack("<I", zlib.crc32(content)) + content


def columns(**changed: object) -> dict[str, object]:
    return {"name": ["w"], "shape": [[2]], "type": ["float32"], "form": ["float32"], "check": 0, **changed}


def test_the_forger_can_write_a_true_one() -> None:
    assert decode(forged(columns(), struct.pack("<2f", 1, 2)))["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ([], "makes no sense"),
        ({}, "makes no sense"),
        (columns(shape=[[-2]]), "shape"),
        (columns(shape=[["2"]]), "shape"),
        (columns(shape=[]), "makes no sense"),
        (columns(type=["string"]), "makes no sense"),
        (columns(form=["zip"]), "form"),
        (columns(form=[0]), "form"),
        (columns(form=[[]]), "makes no sense"),
        (columns(shape=[[10**6]]), "4000000 bytes of tensors are announced, 8 are there"),
        (columns(shape=[[10**12]]), "at most"),
        (columns(shape=[[10**12]], form=["coded"]), "at most"),
        (columns(form=["coded"]), "announced"),
        (columns(check=1), "checksum"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(header: object, complaint: str) -> None:
    with pytest.raises(TrialError, match=complaint):
        decode(forged(header, struct.pack("<2f", 1, 2)))


def test_a_prior_that_lies_is_refused() -> None:
    for scale, low, high in ((float("nan"), 0, 1), (-1.0, 0, 1), (1.0, 1, 0)):
        with pytest.raises(TrialError, match="prior of scale"):
            decode(forged(columns(form=["coded"]), struct.pack("<ffhh", 1.0, scale, low, high)))


def test_another_version_is_named() -> None:
    with pytest.raises(TrialError, match="version RSC1; found b'RSC2'"):
        decode(b"RSC2" + coded()[4:])


def test_a_type_that_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(TrialError, match=r"q is torch\.float8_e5m2"):
        encode({"q": torch.ones(2).to(torch.float8_e5m2)})
