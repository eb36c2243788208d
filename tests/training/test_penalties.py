from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, load_plugin
from rank_search.tasks import seeded
from rank_search.training.penalties import (
    PENALTIES,
    double_soft_orthogonality,
    frames,
    frobenius,
    mutual_coherence,
    orthogonality,
    soft_orthogonality,
    srip,
)


def random_frame(rows: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator)


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(shapes, st.integers(0, 100))
def test_soft_orthogonality_is_the_formula_on_the_smaller_gram_matrix(shape: tuple[int, int], seed: int) -> None:
    frame = random_frame(*shape, seed)
    gram = (frame.T @ frame if shape[0] >= shape[1] else frame @ frame.T).double()
    r = min(shape)
    expected = sum((float(gram[i, j]) - (i == j)) ** 2 for i in range(r) for j in range(r)) / r**2
    assert float(soft_orthogonality(frame)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(shapes, st.integers(0, 100))
def test_srip_approaches_the_spectral_norm_from_below(shape: tuple[int, int], seed: int) -> None:
    frame = random_frame(*shape, seed)
    gram = frame.T @ frame if shape[0] >= shape[1] else frame @ frame.T
    exact = float(torch.linalg.matrix_norm(gram - torch.eye(min(shape)), 2))
    assert float(srip(frame)) <= exact * (1 + 1e-4) + 1e-5
    assert float(srip(frame, iterations=300)) == pytest.approx(exact, rel=0.02, abs=1e-4)


@given(shapes, st.integers(0, 100))
def test_double_soft_orthogonality_is_the_formula_on_both_gram_matrices(shape: tuple[int, int], seed: int) -> None:
    frame = random_frame(*shape, seed).double()
    grams = (frame.T @ frame, frame @ frame.T)
    expected = sum(float((gram - torch.eye(len(gram))).square().sum()) for gram in grams) / min(shape) ** 2
    assert float(double_soft_orthogonality(frame)) == pytest.approx(expected, rel=1e-9)


@given(shapes, st.integers(0, 100))
def test_mutual_coherence_is_the_largest_entry(shape: tuple[int, int], seed: int) -> None:
    frame = random_frame(*shape, seed)
    gram = (frame.T @ frame if shape[0] >= shape[1] else frame @ frame.T).tolist()
    entries = [abs(entry - (i == j)) for i, row in enumerate(gram) for j, entry in enumerate(row)]
    assert float(mutual_coherence(frame)) == pytest.approx(max(entries), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (4, 4), (5, 1)])
@pytest.mark.parametrize("kind", sorted(PENALTIES))
def test_penalty_gradients_are_those_of_finite_differences(kind: str, shape: tuple[int, int]) -> None:
    def penalty(frame: Tensor) -> Tensor:
        with seeded(0):
            return srip(frame, 2000) if kind == "srip" else PENALTIES[kind](frame)  # type: ignore[index]

    frame = random_frame(*shape, 3).double().requires_grad_()
    assert penalty(frame).dtype == torch.float64
    assert torch.autograd.gradcheck(penalty, frame)


@pytest.mark.parametrize("penalty", [soft_orthogonality, mutual_coherence, srip])
def test_penalties_of_an_orthonormal_frame_and_their_gradients_are_zero(penalty: object) -> None:
    frame = torch.eye(6, 3).requires_grad_()
    value = penalty(frame)  # type: ignore[operator]
    value.backward()
    assert float(value.detach()) == 0
    assert torch.equal(frame.grad, torch.zeros(6, 3))  # type: ignore[arg-type]


def test_double_penalty_of_an_orthonormal_frame_has_gradient_zero() -> None:
    frame = torch.eye(6, 3).requires_grad_()
    value = double_soft_orthogonality(frame)
    value.backward()
    assert float(value.detach()) == pytest.approx(3 / 9)
    assert torch.equal(frame.grad, torch.zeros(6, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("penalty", [soft_orthogonality, double_soft_orthogonality, mutual_coherence, srip])
def test_descent_on_a_penalty_makes_a_frame_orthonormal(penalty: object) -> None:
    torch.manual_seed(0)
    frame = random_frame(10, 4, 0).requires_grad_()
    optimizer = torch.optim.Adam([frame], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        penalty(frame).backward()  # type: ignore[operator]
        optimizer.step()
    assert torch.allclose(frame.T @ frame, torch.eye(4), atol=0.1)


def test_penalties_of_half_precision_frames_are_computed_in_single() -> None:
    frame = random_frame(20, 5, 1).to(torch.bfloat16)
    assert soft_orthogonality(frame).dtype == torch.float32
    assert float(soft_orthogonality(frame)) == pytest.approx(float(soft_orthogonality(frame.float())))


def test_penalties_of_an_empty_frame_are_zero() -> None:
    assert float(soft_orthogonality(torch.zeros(4, 0))) == 0
    assert float(mutual_coherence(torch.zeros(4, 0))) == 0


def test_the_penalty_of_a_model_is_the_sum_over_its_frames() -> None:
    dense = nn.Linear(6, 5)
    parts = []
    for rank in (2, 3):
        part = load_plugin("svd")(Layer.of(dense), rank=rank)
        part.fit(dense.weight.detach(), DirectBases(dense.weight))
        with torch.no_grad():
            for frame in part.frames():
                frame.mul_(1 + rank)
        parts.append(part)
    model = nn.Sequential(*parts, nn.Linear(5, 5))
    assert len([*frames(model)]) == 2
    expected = sum(soft_orthogonality(frame) for frame in frames(model))
    assert torch.allclose(orthogonality(model, "so"), torch.as_tensor(expected))


@pytest.mark.parametrize(("name", "values"), [("svd", {"rank": 2}), ("tucker2", {"rank_out": 3, "rank_in": 2})])
def test_frobenius_pulls_the_factors_as_decay_pulls_the_product(name: str, values: dict[str, float]) -> None:
    """By the chain rule: the gradient by the weight W is W itself."""
    with seeded(0):
        dense = nn.Conv2d(4, 6, 3).double()
        part = load_plugin(name)(Layer.of(dense), **values)
    part.fit(dense.weight.detach(), DirectBases(dense.weight))
    model = nn.Sequential(part, nn.Conv2d(6, 2, 1))
    value = frobenius(model)
    assert float(value.detach()) == pytest.approx(float(part.dense().square().sum().detach()) / 2)
    factors = [parameter for key, parameter in part.named_parameters() if key != "bias"]
    weight = part.dense()
    expected = torch.autograd.grad(weight, factors, grad_outputs=weight.detach())
    for found, wanted in zip(torch.autograd.grad(value, factors), expected, strict=True):
        assert torch.allclose(found, wanted)


def test_frobenius_of_an_svd_by_hand() -> None:
    with seeded(0):
        dense = nn.Linear(6, 5).double()
    part = load_plugin("svd")(Layer.of(dense), rank=3)
    part.fit(dense.weight.detach(), DirectBases(dense.weight))
    left, right = part.left, part.right
    W = part.dense().detach()
    by_left, by_right = torch.autograd.grad(frobenius(part), [left, right])
    assert torch.allclose(by_left, W @ right.T)  # type: ignore[operator, union-attr]
    assert torch.allclose(by_right, left.T @ W)  # type: ignore[operator, union-attr]


def test_penalty_of_a_model_without_frames_is_zero() -> None:
    assert float(frobenius(nn.Linear(3, 3))) == 0
    assert float(orthogonality(nn.Linear(3, 3), "srip")) == 0
