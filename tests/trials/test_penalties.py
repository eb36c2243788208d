from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from rank_search.layers import DirectBases, Layer, load_plugin
from rank_search.trials import orthogonality, soft_orthogonality, srip
from rank_search.trials.penalties import frames


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


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_an_orthonormal_frame_costs_nothing_and_feels_nothing(penalty: object) -> None:
    frame = torch.eye(6, 3).requires_grad_()
    value = penalty(frame)  # type: ignore[operator]
    value.backward()
    assert float(value.detach()) == 0
    assert torch.equal(frame.grad, torch.zeros(6, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_descent_makes_a_frame_orthonormal(penalty: object) -> None:
    torch.manual_seed(0)
    frame = random_frame(10, 4, 0).requires_grad_()
    optimizer = torch.optim.Adam([frame], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        penalty(frame).backward()  # type: ignore[operator]
        optimizer.step()
    assert torch.allclose(frame.T @ frame, torch.eye(4), atol=0.1)


def test_half_precision_is_computed_in_single() -> None:
    frame = random_frame(20, 5, 1).to(torch.bfloat16)
    assert soft_orthogonality(frame).dtype == torch.float32
    assert float(soft_orthogonality(frame)) == pytest.approx(float(soft_orthogonality(frame.float())))


def test_an_empty_frame_costs_nothing() -> None:
    assert float(soft_orthogonality(torch.zeros(4, 0))) == 0


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


def test_a_model_without_frames_costs_nothing() -> None:
    assert float(orthogonality(nn.Linear(3, 3), "srip")) == 0
