"""A model that is called by names, from its batches to a small file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.errors import ExportError
from rank_search.export.formats import FORMATS
from tests.story.test_sizes import exported


class Reader(nn.Module):
    """Ids and a mask by name, in an order of its own, and a dictionary as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.inner, self.head = nn.Embedding(50, 16), nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, attention_mask: Tensor, input_ids: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        seen = attention_mask[..., None]
        x = (self.table(input_ids) * seen).sum(1) / seen.sum(1)
        return {"logits": scale * self.head(torch.relu(self.inner(x)))}


def batches(count: int = 3, length: int = 6) -> list[dict[str, Tensor]]:
    torch.manual_seed(1)
    made = []
    for _ in range(count):
        mask = torch.ones(8, length)
        mask[::2, -2:] = 0
        labels = torch.randint(4, (8,))
        made.append({"input_ids": torch.randint(50, (8, length)), "attention_mask": mask, "labels": labels})
    return made


def one(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: each[:1] for name, each in batch.items() if name != "labels"}


def test_a_model_of_named_inputs_is_searched_and_allocated(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Reader(), batches()
    found = rs.compress(
        model,
        train=data,
        selection=data,
        trials=5,
        store=tmp_path / "s.sqlite",
        training={"epochs": 1},
        latency={"repeats": 2},
    )
    assert len(found.front) > 0
    table = rs.options(model, data, example=one(data[0]))
    small = rs.factorize(model, rs.allocate(table, params=0.9), table, data)
    assert small(**one(data[0]))["logits"].shape == (1, 4)


def test_a_model_of_named_inputs_is_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Reader().eval(), batches()
    packed = rs.pack_model(model, data, example=one(data[0]), slope=1e-6)
    assert packed.error < 1e-3
    with pytest.raises(rs.RankSearchError, match="other than floating-point inputs"):
        rs.pack_model(model, example=one(data[0]))


class Named(rs.Task):
    """Calls its model by the names of its batches; `call` may give it more, or less."""

    def __init__(self, network: nn.Module, data: list[Any], example: Any, **more: Any) -> None:
        self.network, self.data, self.one, self.more = network.eval(), data, example, more

    def model(self) -> nn.Module:
        return self.network

    def example(self) -> Any:
        return self.one

    def training(self) -> list[Any]:
        return self.data

    selection = test = training

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        found = model(**batch, **self.more) if isinstance(batch, dict) else model(batch, **self.more)
        return found["logits"] if isinstance(found, dict) else found.logits  # type: ignore[no-any-return]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return self.outputs(model, batch).square().mean()

    def evaluate(self, model: nn.Module, batches: Iterable[Any]) -> Mapping[str, float]:
        return {"error": float(sum(self.outputs(model, batch).square().mean() for batch in batches))}


def without_labels(data: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: each for name, each in batch.items() if name != "labels"} for batch in data]


def test_what_is_exported_is_called_by_the_same_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = without_labels([*batches(2, 6), *batches(1, 9)])
    manifests = exported(Named(Reader(), data, one(data[0])), tmp_path, "safetensors", "pt2", "onnx")
    for manifest in manifests.values():
        assert manifest["sizes"]["names"] == ["attention_mask", "input_ids"]
        assert manifest["sizes"]["shapes"] == [["batch", "attention_mask.1"]] * 2
    folder, packed = rs.load(tmp_path / "safetensors"), rs.load(tmp_path / "s.rsz")
    program = torch.export.load(tmp_path / "pt2" / "model.pt2").module()
    x = without_labels(batches(1, 7))[0]
    with torch.no_grad():
        expected = folder(**x)["logits"]
        assert expected.shape == (8, 4)
        for found in (packed(**x), packed(x["attention_mask"], x["input_ids"]), program(**x), folder(**x, scale=1.0)):
            torch.testing.assert_close(found["logits"], expected, rtol=1e-4, atol=1e-5)
        onnx = FORMATS["onnx"].read(tmp_path / "onnx", {})
        torch.testing.assert_close(onnx(x["attention_mask"], x["input_ids"]), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="takes 2: attention_mask, input_ids"):
        packed(**x, scale=2.0)
    with pytest.raises(ExportError, match=r"'input_ids' has size 7 in dimension 1, but .* has size 6"):
        packed(**{**x, "attention_mask": x["attention_mask"][:, :6]})


def test_numbers_and_switches_that_evaluate_gives_are_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Reader(), without_labels(batches(2))
    by_position = (data[0]["attention_mask"][:1], data[0]["input_ids"][:1])
    for place, example in enumerate((one(data[0]), by_position)):
        folder = tmp_path / str(place)
        folder.mkdir()
        exported(Named(model, data, example, scale=3.0), folder, "safetensors")
        found, x = rs.load(folder / "s.rsz"), data[0]
        plain = tmp_path / f"plain {place}"
        plain.mkdir()
        exported(Named(model, data, example), plain)
        ratio = found(**x)["logits"] / rs.load(plain / "s.rsz")(**x)["logits"]
        assert ratio.mean().item() == pytest.approx(3.0, rel=0.2)


class Answer(OrderedDict[str, Any]):
    """An output as Hugging Face's: a dictionary whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Cache:
    """No tensor, and of a class that nobody else has."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


@dataclass
class Plain:
    logits: Tensor
    cache: Cache | None = None


class Caches(Reader):
    """Gives a cache beside its logits, and a loss where there are labels."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        logits = super().forward(attention_mask, input_ids)["logits"]
        if self.kind is Plain:
            return Plain(logits, Cache(logits))
        loss = {} if labels is None else {"loss": nn.functional.cross_entropy(logits, labels)}
        return Answer(**loss, logits=logits, cache=Cache(logits), deep=(logits.exp(), Cache(logits)))


@pytest.mark.parametrize("kind", [Answer, Plain])
def test_outputs_come_back_as_dictionaries_without_their_cache(
    kind: type, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    data = batches(2)
    exported(Named(Caches(kind), data, one(data[0])), tmp_path, "safetensors", "pt2")
    assert "Left out of what the written model gives" in caplog.text
    assert "cache (Cache)" in caplog.text
    x = without_labels(data)[0]
    names = {"logits"} if kind is Plain else {"logits", "deep"}
    for model in (rs.load(tmp_path / "safetensors"), rs.load(tmp_path / "s.rsz")):
        found = model(**x)
        assert type(found) is dict
        assert {*found} == names
    program = torch.export.load(tmp_path / "pt2" / "model.pt2").module()
    torch.testing.assert_close(program(**x)["logits"], rs.load(tmp_path / "safetensors")(**x)["logits"])


class Nested(Reader):
    """One argument with everything in it."""

    def forward(self, batch: Any, more: list[Tensor] | None = None) -> Any:  # type: ignore[override]
        found = super().forward(batch["attention_mask"], batch["input_ids"])
        return found if more is None else {"logits": found["logits"] + more[0]}


def test_containers_are_taken_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = Nested(), without_labels(batches(2))
    example = {"batch": one(data[0]), "more": [torch.ones(1, 4)]}
    packed = rs.pack_model(model, [{"batch": x, "more": [torch.ones(8, 4)]} for x in data], example=example)
    packed.write(tmp_path / "nested.rsz", ["batch_input_ids:1", "batch_attention_mask:1"])
    back, x, more = rs.load(tmp_path / "nested.rsz"), without_labels(batches(1, 9))[0], [torch.ones(8, 4)]
    expected = packed.model(x, more)["logits"]
    swapped = dict(reversed(x.items()))
    for found in (back(x, more), back(swapped, more=more), back(batch=swapped, more=more)):
        torch.testing.assert_close(found["logits"], expected)
    flat = {f"batch_{name}": each for name, each in x.items()}
    torch.testing.assert_close(back(**flat, more_0=more[0])["logits"], expected)


class Needs(Reader):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:  # type: ignore[override]
        seen = torch.ones(input_ids.shape) if attention_mask is None else attention_mask
        return super().forward(seen, input_ids)


@pytest.mark.parametrize(
    ("drop", "complaint"),
    [
        (1, "evaluate\\(\\) gives the model attention_mask, which the task's example\\(\\) has not"),
        (0, "evaluate\\(\\) calls the model without attention_mask"),
    ],
)
def test_another_call_than_the_examples_is_refused(drop: int, complaint: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = without_labels(batches(2))
    example, given = one(data[0]), data
    if drop:
        del example["attention_mask"]
    else:
        given = [{"input_ids": batch["input_ids"]} for batch in data]
    with pytest.raises(ExportError, match=complaint):
        exported(Named(Needs(), given, example), tmp_path, "safetensors")
