from __future__ import annotations

import pytest

from rank_search.point import Objective
from rank_search.search import at_the_bad_end


@pytest.mark.parametrize(
    ("objective", "dense", "said"),
    [
        (Objective("score"), 0.93, 'direction = "maximize"'),
        (Objective("score", "maximize"), 0.07, 'direction = "minimize"'),
        (Objective("error", "maximize"), 0.04, 'direction = "minimize"'),
        (Objective("accuracy"), 0.93, 'direction = "maximize"'),
        (Objective("error"), 0.95, "are its weights loaded"),
        (Objective("accuracy", "maximize"), 0.05, "are its weights loaded"),
        (Objective("score"), 0.3, ""),
        (Objective("error"), 0.6, ""),
        (Objective("accuracy", "maximize"), 0.3, ""),
        (Objective("loss"), 0.95, ""),
        (Objective("rmse"), 0.7, ""),
        (Objective("mAP", "maximize"), 0.05, ""),
        (Objective("perplexity"), 30.0, ""),
        (Objective("latency"), 0.9, ""),
        (Objective("latency_ratio"), 1.0, ""),
    ],
)
def test_a_dense_model_at_the_bad_end(objective: Objective, dense: float, said: str) -> None:
    found = at_the_bad_end(objective, dense)
    assert bool(found) == bool(said)
    assert said in found
