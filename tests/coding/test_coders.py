from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rank_search.coding.binarization import ALONE, NEVER, Integers, Neighbours, questions, thirds
from rank_search.coding.binary_range_coder import BinaryReader, BinaryWriter, Contexts
from rank_search.coding.byte_streams import Reader, Writer
from rank_search.coding.coding_priors import (
    FAMILIES,
    TOTAL,
    RangeReader,
    RangeWriter,
    best,
    frequencies,
    masses,
    tabulated,
)
from rank_search.coding.estimate import LearnedModel, adaptive_bits
from rank_search.coding.plans import ADAPTIVE, CONSTANT, TABLE, CodingPlan, choose, coded_bits

numbers = st.lists(st.integers(-32767, 32767) | st.integers(-3, 3), min_size=1, max_size=60)
bounds = st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 99)).map(lambda each: Neighbours(*sorted(each)))


def adaptive(matrices: list[Integers], neighbours: Neighbours = ALONE) -> tuple[bytes, Contexts]:
    writer, contexts = BinaryWriter(), Contexts()
    for matrix in matrices:
        writer.write(matrix.reshape(-1).astype(np.int64), neighbours.kinds(matrix), contexts)
    return writer.finish(), contexts


@given(st.lists(numbers, max_size=4), st.integers(1, 7), st.just(ALONE) | bounds)
def test_the_adaptive_coder_reads_what_it_wrote(lists: list[list[int]], rows: int, neighbours: Neighbours) -> None:
    matrices = [np.array(each * rows, dtype=np.int32).reshape(rows, -1) for each in lists]
    stream, learned = adaptive(matrices, neighbours)
    reader, contexts = BinaryReader(stream), Contexts()
    for matrix in matrices:
        assert np.array_equal(reader.read((rows, matrix.shape[1]), neighbours, contexts), matrix)
    assert contexts == learned


def test_a_long_run_of_one_number_costs_next_to_nothing_and_carries() -> None:
    rng = np.random.default_rng(0)
    for chance in (0.0, 0.001, 0.5, 0.999, 1.0):
        matrix = (rng.random((1, 40_000)) < chance).astype(np.int32)
        stream, _ = adaptive([matrix])
        assert np.array_equal(BinaryReader(stream).read(matrix.shape, ALONE, Contexts()), matrix)
        entropy = -sum(each * math.log2(each) for each in (chance, 1 - chance) if each)
        assert 8 * len(stream) <= 40_000 * (1.02 * entropy + 0.004)


@pytest.mark.parametrize("stream", [b"", b"\0" * 8, b"\xff" * 8, bytes(range(99))])
def test_any_bytes_are_read_or_refused(stream: bytes) -> None:
    try:
        found = BinaryReader(stream).read((30, 30), ALONE, Contexts())
    except ValueError:
        return
    assert int(np.abs(found).max()) < 1 << 17


@given(numbers, st.integers(1, 5), st.booleans())
@settings(deadline=None)
def test_the_estimate_is_the_size_that_the_coder_writes(values: list[int], rows: int, near: bool) -> None:
    matrix = np.array(values * rows * 10, dtype=np.int32).reshape(rows, -1)
    neighbours = thirds([matrix]) if near else ALONE
    stream, contexts = adaptive([matrix], neighbours)
    learned = LearnedModel()
    bits = adaptive_bits(questions(matrix.reshape(-1).astype(np.int64), neighbours.kinds(matrix)), learned)
    assert 8 * len(stream) == pytest.approx(bits, rel=0.003, abs=24)
    assert np.allclose(learned.fast, np.array(contexts.fast) / (1 << 24), atol=2e-3)
    assert np.array_equal(np.minimum(learned.uses, 127), contexts.uses)


def laplace(scale: float, shape: tuple[int, int]) -> Integers:
    return np.round(np.random.default_rng(0).laplace(0, scale, shape)).astype(np.int32)


def entropy(matrix: Integers) -> float:
    _, counts = np.unique(matrix, return_counts=True)
    return float(-(counts * np.log2(counts / matrix.size)).sum())


@pytest.mark.parametrize("scale", [0.15, 0.5, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("family", ["laplace", "normal", "logistic"])
def test_known_distributions_cost_their_entropy(family: str, scale: float) -> None:
    matrix = np.round(getattr(np.random.default_rng(0), family)(0, scale, (300, 300))).astype(np.int32)
    plan, _ = choose([matrix])
    assert plan.bits <= 1.01 * entropy(matrix) + 64
    writer = Writer()
    writer.add("", matrix, [0])
    _, _, *streams = writer.finish()
    assert 8 * sum(map(len, streams)) <= 1.01 * entropy(matrix) + 64
    assert coded_bits({"w": matrix})["w"] == pytest.approx(8 * sum(map(len, streams)), rel=0.01, abs=80)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(("shape", "over"), [((64, 8), 0.1), ((256, 16), 0.03), ((256, 256), 0.012)])
def test_the_adaptive_coder_needs_little_more_than_the_entropy(
    scale: float, shape: tuple[int, int], over: float
) -> None:
    matrix = laplace(scale, shape)
    stream, _ = adaptive([matrix])
    assert 8 * len(stream) <= (1 + over) * entropy(matrix) + 16


@pytest.mark.parametrize(
    ("matrix", "ways"),
    [
        (np.full((9, 9), -4, np.int32), {CONSTANT}),
        (laplace(1.0, (64, 8)), {1, ADAPTIVE}),
        (np.random.default_rng(0).choice(np.array([-90, -7, 8, 9, 55], np.int32), (300, 300)), {TABLE}),
        (np.repeat(np.arange(200, dtype=np.int32)[:, None] % 40, 50, 1) * laplace(1.0, (200, 50)), {ADAPTIVE}),
    ],
)
def test_the_smallest_way_of_coding_is_taken_and_comes_back(matrix: Integers, ways: set[int]) -> None:
    writer = Writer()
    writer.add("a", matrix, [3])
    writer.add("b", matrix.T.copy(), [-5, 7])
    plans, _, adaptive_stream, ranged = writer.finish()
    assert {plan.way for plan in plans} <= ways
    reader = Reader(plans, adaptive_stream, ranged)
    assert reader.exponents([1, 2]) == [[3], [-5, 7]]
    for group, expected in enumerate((matrix, matrix.T)):
        reader.begin(group, matrix.size)
        assert np.array_equal(reader.read(group, expected.shape), expected)


@given(st.sampled_from(FAMILIES), numbers.filter(lambda each: len(set(each)) > 1), st.integers(0, 1279))
@settings(deadline=None)
def test_priors_read_what_they_wrote(family: str, values: list[int], parameter: int) -> None:
    flat = np.array(values, dtype=np.int32)
    mass = masses(family, parameter, int(flat.min()), int(flat.max()))
    assert frequencies(mass).sum() == TOTAL
    assert frequencies(mass).min() >= 1
    writer = RangeWriter()
    writer.write(flat, int(flat.min()), mass)
    assert np.array_equal(RangeReader(writer.finish()).read(flat.size, int(flat.min()), mass), flat)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parameter", [300, 640, 700, 900])
def test_masses_are_those_of_the_distributions(family: str, parameter: int) -> None:
    odds = (1 + parameter % 32 / 32) * 2.0 ** (parameter // 32 - 20)
    rate, k = -math.log(odds / (1 + odds)), np.arange(-40, 41)
    if family == "normal":
        expected = np.exp(-rate * k.astype(float) ** 2)
    elif family == "laplace":
        tail = np.exp(-rate * (np.abs(k) - 0.5)) * -np.expm1(-rate) / 2
        expected = np.where(k == 0, -np.expm1(-rate / 2), tail)
    else:
        expected = 1 / (1 + np.exp(-rate * (k + 0.5))) - 1 / (1 + np.exp(-rate * (k - 0.5)))
    assert np.allclose(masses(family, parameter, -40, 40), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_best_parameter_is_the_best_of_all(family: str) -> None:
    flat = laplace(2.0, (1, 300)).reshape(-1)
    counts, low = np.bincount(flat - flat.min()), int(flat.min())
    _, bits = best(family, counts, low)
    seen = np.flatnonzero(counts)
    every = [
        float((counts[seen] * (24 - np.log2(frequencies(masses(family, each, low, int(flat.max())))[seen]))).sum())
        for each in range(0, 1280, 3)
    ]
    assert bits <= min(every) + 0.2


def test_a_table_is_in_eighths_of_a_bit() -> None:
    assert tabulated([0, 8, 4, 191]).tolist() == pytest.approx([1, 0.5, 2**-0.5, 2 ** (-191 / 8)])


def test_neighbours_tell_kinds() -> None:
    matrix = np.array([[0, 1, 0, 3], [5, 0, 0, 0]], np.int32)
    assert Neighbours(0, 1, 3).kinds(matrix).tolist() == [0, 0, 2, 1, 0, 3, 3, 0]
    assert ALONE.kinds(matrix).sum() == 0
    assert NEVER > 3 * 2 * 32767


def test_a_plan_of_a_prior_that_reaches_far_is_safe() -> None:
    for low, high in ((1000, 1010), (-5, 30000), (-3, 3)):
        for family in range(3):
            mass = CodingPlan(1 + family, low=low, high=high, parameter=5).mass()
            assert frequencies(mass).size == high - low + 1
