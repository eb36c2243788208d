"""A front member becomes a model to deploy: the same numbers, in other processes, without us; and nothing else."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rank_search as rs
from rank_search.artifacts import ArtifactStore
from rank_search.coding import decode
from rank_search.errors import ArtifactError, ExportError
from rank_search.export.formats import FORMATS
from rank_search.export.tracing import trace
from rank_search.layers import Example
from rank_search.point import Artifact, Execution
from rank_search.programs import Sizes
from tests.artifacts.servers import s3, s3_server  # noqa: F401
from tests.story.forks import Death, Forks
from tests.story.small import toml

HERE = Path(__file__).parent
CONV, LINEAR = "second", "last"
POINTS: dict[str, dict[str, Any]] = {
    "svd": {CONV: {"factorization": "svd", "rank": 4}, LINEAR: {"factorization": "svd", "rank": 2}},
    "tucker2": {CONV: {"factorization": "tucker2", "rank_out": 5, "rank_in": 3}},
    "svd-spatial": {CONV: {"factorization": "svd-spatial", "rank": 6}},
    "cp": {CONV: {"factorization": "cp", "rank": 5}},
}


@dataclass(frozen=True)
class Nets:
    """A finished study with a trial for each factorization, and one that is dense under the entropy penalty."""

    folder: Path

    @property
    def file(self) -> str:
        return str(self.folder / "nets.toml")

    @property
    def store(self) -> str:
        return str(self.folder / "nets.sqlite")

    def rows(self) -> dict[str, rs.TrialRow]:
        with rs.Store.open(self.store) as store:
            return {row.sampler["label"].removeprefix("point "): row for row in store.front(store.study("nets"))}

    def model(self, label: str) -> nn.Module:
        with rs.Store.open(self.store) as store:
            return rs.build_model(store, "nets", self.rows()[label].number)

    def export(self, label: str, folder: Path, format: str = "safetensors") -> dict[str, Any]:
        with rs.Store.open(self.store) as store:
            return rs.export_trial(store, "nets", self.rows()[label].number, folder, format)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Nets:
    made = Nets(tmp_path_factory.mktemp("nets"))
    shutil.copy(HERE / "nets.py", made.folder)
    points = [{"name": name, "layers": layers, "entropy": 0.0} for name, layers in POINTS.items()]
    points.append({"name": "svd entropy", "layers": POINTS["svd"], "entropy": 0.3})
    search = {
        "objectives": ["loss", {"name": "gain", "direction": "maximize"}],
        "entropy": {"low": 0.05, "high": 0.5},
        "seeds": {"allocations": 0, "fractions": [], "weakenings": [], "points": points},
    }
    tables: dict[str, Any] = {
        "study": {"name": "nets", "trials": 7, "cache": "spectra", "store": made.store},
        "task": {"factory": "nets.py:Everything"},
        "layers": {"factorizations": list(POINTS)},
        "search": search,
        "training": {"epochs": 2, "learning_rate": 0.01},
    }
    Path(made.file).write_text(toml(tables), encoding="utf-8")
    assert rs.run_study(rs.load_study(made.file)).complete
    assert set(made.rows()) == {"dense", "dense entropy", "svd entropy", *POINTS}
    return made


LABELS = ("dense", "dense entropy", "svd entropy", *POINTS)
BATCHES = [torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(count)) for count in (1, 3, 7)]


def run_python(code: str, folder: Path, *arguments: object) -> Any:
    """The JSON that a fresh process prints."""
    command = [sys.executable, "-c", dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- the model of a trial --------------------------------------------------------------------------------


def test_a_rebuilt_model_measures_what_was_recorded_in_a_fresh_process(nets: Nets, tmp_path: Path) -> None:
    code = """
        import json, sys, torch
        import rank_search as rs
        torch.set_num_threads(1)
        found = {}
        with rs.Store.open(sys.argv[1]) as store:
            study = store.study("nets")
            task = rs.load_study(sys.argv[2])
            from rank_search.study import load_task
            task = load_task(task)
            for row in store.trials(study):
                model = rs.build_model(store, "nets", row.number)
                with torch.no_grad():
                    found[row.number] = [task.evaluate(model, task.selection())["loss"], row.measurements["loss"]]
        print(json.dumps(found))
    """
    found = run_python(code, tmp_path, nets.store, nets.file)
    assert len(found) == 7
    for rebuilt, recorded in found.values():
        assert rebuilt == recorded


@pytest.mark.parametrize("label", LABELS)
def test_the_coded_bytes_are_the_weights(nets: Nets, tmp_path: Path, label: str) -> None:
    nets.export(label, tmp_path / "small")
    coded, state = (tmp_path / "small" / "model.coded").read_bytes(), nets.model(label).state_dict()
    assert 8 * len(coded) == nets.rows()[label].measurements["bits"]
    decoded = decode(coded)
    assert decoded.keys() == state.keys()
    assert all(torch.equal(decoded[name], state[name]) for name in state)


def test_only_a_front_member_can_be_exported(nets: Nets, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ExportError, match="there already exists"):
        nets.export("svd", tmp_path / "there")
    with rs.Store.open(nets.store) as store, pytest.raises(rs.RankSearchError, match="99"):
        rs.export_trial(store, "nets", 99, tmp_path / "small")
    with pytest.raises(ExportError, match="no format 'pickle'"):
        nets.export("svd", tmp_path / "small", "pickle")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_stopped_trial_is_no_model_to_deploy(nets: Nets, tmp_path: Path) -> None:
    copied = Nets(tmp_path / "copied")
    shutil.copytree(nets.folder, copied.folder)
    artifact = Artifact("checkpoint", "some.checkpoint", "0" * 64, 3)
    stopped = rs.Outcome(rs.State.STOPPED, nets.rows()["svd"].measurements, artifacts=(artifact,))
    point, now = rs.Point({CONV: rs.Choice("svd", {"rank": 3})}), datetime.now(UTC)
    with rs.Store.open(copied.store) as store:
        study = store.study("nets")
        held = store.claim(study, point, "somebody", budget=0.5)
        assert held is not None
        store.record(study, held, stopped, Execution(0, now, now))
        for attempt in (
            lambda: rs.build_model(store, "nets", held.number),
            lambda: rs.export_trial(store, "nets", held.number, tmp_path / "small"),
        ):
            with pytest.raises(ExportError, match=rf"Trial {held.number} was stopped after 0\.5 epochs;.* Choose"):
                attempt()
    assert not (tmp_path / "small").exists()


def test_artifacts_are_found_where_the_store_says_they_are(s3: str, tmp_path: Path) -> None:  # noqa: F811
    made = Nets(tmp_path / "nets")
    made.folder.mkdir()
    shutil.copy(HERE / "nets.py", made.folder)
    tables: dict[str, Any] = {
        "study": {
            "name": "nets",
            "trials": 3,
            "cache": "spectra",
            "store": made.store,
            "artifacts": "s3://bucket/studies/nets",
        },
        "task": {"factory": "nets.py:Everything"},
        "layers": {"factorizations": ["svd"]},
        "search": {"objectives": ["loss", "params"]},
        "training": {"epochs": 0.5},
    }
    Path(made.file).write_text(toml(tables), encoding="utf-8")
    assert rs.run_study(rs.load_study(made.file)).complete
    assert not [path for path in made.folder.rglob("*") if path.suffix in (".coded", ".artifacts")]
    with rs.Store.open(made.store) as store:
        study = store.study("nets")
        artifacts = ArtifactStore(study.artifacts)
        member = store.front(study)[0]
        kept = {artifact.location for row in store.trials(study) for artifact in row.artifacts}
        assert set(artifacts.names()) == kept
        manifest = rs.export_trial(store, "nets", member.number, tmp_path / "small")
        assert (
            rs.build_model(store, "nets", member.number)(BATCHES[0]).shape
            == rs.load(tmp_path / "small")(BATCHES[0]).shape
        )
        assert "s3://" not in json.dumps(manifest)
        assert not {"store", "artifacts", "folder"} & set(manifest)
        artifacts.delete(next(each.location for each in member.artifacts if each.kind == "coded"))
        with pytest.raises(ArtifactError, match=r"In s3://bucket/studies/nets.* could not be read"):
            rs.export_trial(store, "nets", member.number, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# ---- in a process without us -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(nets: Nets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of several batch sizes, and what each model makes of them."""
    file = tmp_path_factory.mktemp("expected") / "expected.npz"
    arrays = {f"inputs {place}": batch.numpy() for place, batch in enumerate(BATCHES)}
    with torch.no_grad():
        for label in LABELS:
            model = nets.model(label)
            arrays |= {f"{label} {place}": model(batch).numpy() for place, batch in enumerate(BATCHES)}
    np.savez(file, **arrays)
    return file


def test_pt2_needs_torch_alone(nets: Nets, expected: Path, tmp_path: Path) -> None:
    for label in LABELS:
        assert nets.export(label, tmp_path / label, "pt2")["any_batch"] is True
    code = """
        import json, pathlib, sys, warnings
        for name in ("rank_search", "rank_search_plugins", "optuna", "sqlalchemy", "tensorly"):
            sys.modules[name] = None
        warnings.simplefilter("ignore")
        import numpy as np, torch
        torch.set_num_threads(1)
        arrays, worst = np.load(sys.argv[1]), {}
        for folder in sorted(pathlib.Path(".").iterdir()):
            model = torch.export.load(folder / "model.pt2").module()
            worst[folder.name] = [
                float(np.abs(model(torch.from_numpy(arrays[f"inputs {place}"])).detach().numpy()
                      - arrays[f"{folder.name} {place}"]).max()) for place in range(3)
            ]
        print(json.dumps(worst))
    """
    assert run_python(code, tmp_path, expected) == {label: [0.0, 0.0, 0.0] for label in LABELS}


def test_onnx_needs_onnxruntime_alone(nets: Nets, expected: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    labels = ("svd", "cp", "dense entropy")
    for label in labels:
        nets.export(label, tmp_path / label, "onnx")
    code = """
        import json, pathlib, sys
        for name in ("rank_search", "torch"):
            sys.modules[name] = None
        import numpy as np, onnxruntime
        arrays, worst = np.load(sys.argv[1]), {}
        for folder in sorted(pathlib.Path(".").iterdir()):
            session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
            name = session.get_inputs()[0].name
            worst[folder.name] = max(
                float(np.abs(session.run(None, {name: arrays[f"inputs {place}"]})[0]
                      - arrays[f"{folder.name} {place}"]).max()) for place in range(3)
            )
        print(json.dumps(worst))
    """
    found = run_python(code, tmp_path, expected)
    assert set(found) == set(labels)
    assert max(found.values()) < 1e-5


def test_safetensors_need_neither_the_store_nor_the_task(nets: Nets, expected: Path, tmp_path: Path) -> None:
    copied = Nets(tmp_path / "copied")
    shutil.copytree(nets.folder, copied.folder)
    exports = tmp_path / "exports"
    exports.mkdir()
    for label in LABELS:
        copied.export(label, exports / label)
        assert {path.name for path in (exports / label).iterdir()} == {
            "graph.json",
            "manifest.json",
            "model.coded",
            "model.safetensors",
        }
    shutil.rmtree(copied.folder)
    code = """
        import json, pathlib, pickle, sys
        import numpy as np, torch
        import rank_search as rs
        torch.set_num_threads(1)
        pickle.load = pickle.loads = pickle.Unpickler = torch.load = None
        arrays, worst = np.load(sys.argv[1]), {}
        for folder in sorted(pathlib.Path(".").iterdir()):
            model = rs.load(folder)
            assert not model.training
            with torch.no_grad():
                worst[folder.name] = [
                    float(np.abs(model(torch.from_numpy(arrays[f"inputs {place}"])).numpy()
                          - arrays[f"{folder.name} {place}"]).max()) for place in range(3)
                ]
        print(json.dumps(worst))
    """
    found = run_python(code, exports, expected)
    assert set(found) == set(LABELS)
    assert max(map(max, found.values())) < 1e-6


# ---- all at once or nothing ------------------------------------------------------------------------------


def test_what_is_not_verified_is_not_there(nets: Nets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_wrong(folder: Path, manifest: Mapping[str, Any]) -> nn.Module:
        model = whole.read(folder, manifest)
        next(model.buffers()).mul_(1.1)
        return model

    whole = FORMATS["safetensors"]
    monkeypatch.setitem(FORMATS, "safetensors", replace(whole, read=half_wrong))
    with pytest.raises(ExportError, match="differ from the model's by up to"):
        nets.export("svd", tmp_path / "small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_killed_in_the_middle_it_leaves_no_folder_of_that_name(nets: Nets, tmp_path: Path) -> None:
    outcomes = []
    with Forks(tmp_path) as forks:
        number = nets.rows()["svd"].number
        for calls in (1, 14, 200):
            folder = tmp_path / f"small{calls}"
            death = Death("rank_search/export/trial_model.py", calls)
            outcomes.append(forks.run("export", nets.store, "nets", number, "-o", folder, death=death))
            assert folder.exists() == (outcomes[-1] == 0)
            if folder.exists():
                rs.load(folder)
    assert outcomes[0] == -signal.SIGKILL
    assert outcomes[-1] == 0


# ---- damaged, and hostile --------------------------------------------------------------------------------


@pytest.fixture
def exported(nets: Nets, tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    nets.export("svd", folder)
    return folder


def rewritten(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8") and None


def cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-7])


def one_bit(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut_short, "Changed since the export: model.safetensors in "),
        (one_bit, "Changed since the export: model.safetensors in "),
        (rewritten("graph.json", "{}"), "Changed since the export: graph.json in "),
        (rewritten("model.coded", ""), "Changed since the export: model.coded in "),
        (lambda folder: (folder / "graph.json").unlink(), "Changed since the export: graph.json in "),
        (lambda folder: (folder / "manifest.json").unlink(), "its manifest.json cannot be read"),
        (rewritten("manifest.json", "{"), "its manifest.json cannot be read"),
        (rewritten("manifest.json", "[]"), "its manifest.json cannot be read"),
        (rewritten("manifest.json", "[" * 100_000), "its manifest.json cannot be read"),
        (rewritten("manifest.json", '{"format": "safetensors"}'), "its manifest.json cannot be read"),
        (rewritten("manifest.json", '{"format": "safetensors", "files": 3}'), "cannot be read"),
        (rewritten("manifest.json", '{"format": "safetensors", "files": {}}'), "the export: graph.json, model.safe"),
        (rewritten("manifest.json", '{"format": "pt2", "files": {}}'), "holds the format 'pt2'"),
    ],
)
def test_a_damaged_export_is_refused(exported: Path, damage: Callable[[Path], None], complaint: str) -> None:
    damage(exported)
    with pytest.raises(ExportError, match=complaint):
        rs.load(exported)


INPUT = {"op": "input", "name": "x"}
OUTPUT = {"op": "output", "args": [{"node": "y"}]}


def calling(target: object, *args: object, **kwargs: object) -> dict[str, Any]:
    call = {"op": "call", "name": "y", "target": target, "args": [{"node": "x"}, *args], "kwargs": kwargs}
    return {"nodes": [INPUT, call, OUTPUT], "structure": 0}


def just(*nodes: dict[str, Any], structure: object = 0) -> dict[str, Any]:
    return {"nodes": list(nodes), "structure": structure}


EVIL = "__import__('os').system('touch pwned')"


@pytest.mark.parametrize(
    "graph",
    [
        calling("aten.from_file.default", "pwned", True, 4),
        calling("aten.from_file.out", "pwned", True, 4),
        calling("aten.save.default", "pwned"),
        calling("aten.manual_seed.default"),
        calling("aten._reshape_alias.default", [9999], [1]),
        calling("aten.set_.source_Tensor"),
        calling("os.system", "touch pwned"),
        calling("builtins.eval", EVIL),
        calling("eval", EVIL),
        calling("prim.Print.default"),
        calling("quantized.linear.default"),
        calling("profiler._record_function_enter.default"),
        calling("aten.__class__.__init__"),
        calling("aten.__getattribute__.__call__", "x"),
        calling("aten.relu.__call__"),
        calling("aten.relu.op"),
        calling("aten..default"),
        calling("aten.no_such_thing.default"),
        calling(None),
        calling(["aten", "relu"]),
        just({"op": "input", "name": f"x={EVIL}"}, {"op": "output", "args": [{"node": "x"}]}),
        just(INPUT, {"op": "tensor", "name": "y", "target": f'z"), {EVIL}, ("'}, OUTPUT),
        just(INPUT, {"op": "tensor", "name": "y", "target": "__class__"}, OUTPUT),
        just(INPUT, {"op": "tensor", "name": "y", "target": "not there"}, OUTPUT),
        just(INPUT, OUTPUT),
        just(INPUT, INPUT, {"op": "output", "args": [{"node": "x"}]}),
        just(INPUT, {"op": "output", "args": [{"node": "x"}]}, structure=1),
        just(INPUT, {"op": "output", "args": [{"node": "x"}]}, structure={"os.system": [0]}),
        just(INPUT, {"op": "output", "args": [{"node": "x"}]}, structure=[0]),
        just(INPUT, {"op": "output", "args": [{"os": "system"}]}),
        just(INPUT, {"op": "output", "args": [{"dtype": "__builtins__"}]}),
        just(INPUT, {"op": "output", "args": [{"dtype": "nn"}]}),
        calling("aten.mul.Tensor", {"float": 10**400}),
        calling("aten.mul.Tensor", {"complex": [10**400, 0]}),
        {"nodes": [INPUT]},
        {"nodes": 7, "structure": 0},
        {},
        [],
        None,
    ],
    ids=lambda graph: json.dumps(graph)[-60:],
)
def test_a_hostile_graph_is_refused_and_runs_nothing(
    exported: Path, graph: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.parent)
    forge(exported, json.dumps(graph))
    with pytest.raises(ExportError, match="graph"):
        rs.load(exported)
    assert not Path("pwned").exists()


def forge(exported: Path, graph: str) -> None:
    """Put another graph into an export, digest and all, for inputs of any size."""
    (exported / "graph.json").write_text(graph, encoding="utf-8")
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["graph.json"] = sha256(graph.encode()).hexdigest()
    for key in ("sizes", "inputs"):
        manifest.pop(key, None)
    (exported / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_a_graph_without_end_is_refused(exported: Path) -> None:
    forge(exported, "[" * 100_000)
    with pytest.raises(ExportError, match=r"graph\.json"):
        rs.load(exported)
    deep = calling("aten.relu.default")
    text = json.dumps(deep).replace('"structure": 0', '"structure": ' + '{"list": [' * 400 + "0" + "]}" * 400)
    forge(exported, text)
    try:
        model = rs.load(exported)
    except ExportError:
        return
    model(torch.ones(1))


@pytest.mark.parametrize(
    "evil", [{f"a={EVIL}, b": 1}, {"self": 1}, {"nothing": {"dtype": "float32"}}], ids=["code", "self", "unknown"]
)
def test_a_hostile_argument_is_a_plain_error_of_the_call(
    exported: Path, evil: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.parent)
    forge(exported, json.dumps(calling("aten.relu.default", **evil)))
    model = rs.load(exported)
    with pytest.raises((RuntimeError, TypeError)):
        model(torch.ones(1))
    assert not Path("pwned").exists()


def test_huge_shapes_are_refused_by_the_allocator_and_not_before_a_call(exported: Path) -> None:
    call = {"op": "call", "name": "y", "target": "aten.zeros.default", "args": [[2**60, 2**60]], "kwargs": {}}
    forge(exported, json.dumps(just(INPUT, call, OUTPUT)))
    model = rs.load(exported)
    with pytest.raises(RuntimeError):
        model(torch.ones(1))


# ---- all kinds of models ---------------------------------------------------------------------------------


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.one(x) * self.other(y)


class AnyNumber(TwoInputs):
    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs)


class OneOrMore(TwoInputs):
    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        return super().forward(x, rest[0])


class Structured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"one": self.one(x), "rest": [self.other(x), (x, x + 1)]}


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.again = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.one(x)))


class Buffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.rand(4))
        self.register_buffer("not_kept", torch.rand(4), persistent=False)
        self.constant = torch.rand(4)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.kept + self.not_kept + self.constant).clamp(-float("inf"), 1.5)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.circular = nn.Conv2d(3, 4, 3, padding="same", padding_mode="circular")
        self.norm, self.relu, self.drop = nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.last = nn.Linear(4 * 6 * 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.circular(x)))
        y += 1
        return self.last(self.drop(y).reshape(x.size(0), -1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries, self.out, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, channels = x.shape
        queries, keys, values = self.queries(self.norm(x)).view(batch, time, 3, 2, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return x + nn.functional.gelu(self.out(mixed.transpose(1, 2).reshape(batch, time, channels)))


class ChangesGradients(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return x * 2


class Named(NamedTuple):
    doubled: Tensor
    nothing: None


class GivesNamed(nn.Module):
    def forward(self, x: Tensor) -> Named:
        return Named(x * 2, None)


class Masks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        kept = (x > 0) & (x < 1) | ((x > 2) ^ (x < -1))
        return x.masked_fill(kept, 0.0)


class Antialiased(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.interpolate(x, size=(3, 3), mode="bilinear", antialias=True)
        return small + nn.functional.interpolate(x, size=(3, 3), mode="nearest-exact")


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        with torch.no_grad():
            seen = x * 2
        return seen + self.calls


class OddNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleDict({"stage[0]": nn.Linear(4, 3), "a/b c": nn.Linear(3, 2)})
        self._steps, self._tensors = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stages["a/b c"](self.stages["stage[0]"](x))
        return self._tensors(self._steps(y))


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.one(x)
        return y if mask is None else y * mask


class Complex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x * 2j.imag) * (1 + 2j)


MODELS: dict[str, Callable[[], tuple[nn.Module, Example]]] = {
    "two inputs": lambda: (TwoInputs(), (torch.rand(1, 4), torch.rand(1, 5))),
    "any number of inputs": lambda: (AnyNumber(), (torch.rand(1, 4), torch.rand(1, 5))),
    "one or more inputs": lambda: (OneOrMore(), (torch.rand(1, 4), torch.rand(1, 5))),
    "structured outputs": lambda: (Structured(), torch.rand(1, 4)),
    "shared layers": lambda: (Shared(), torch.rand(1, 4)),
    "buffers": lambda: (Buffers(), torch.rand(1, 4)),
    "convolutions": lambda: (Convolutions(), torch.rand(1, 3, 6, 6)),
    "channels last": lambda: (
        Convolutions().to(memory_format=torch.channels_last),
        torch.rand(1, 3, 6, 6).to(memory_format=torch.channels_last),
    ),
    "attention": lambda: (Attention(), torch.rand(1, 5, 8)),
    "transformer": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.rand(1, 5, 8)),
    "no gradients": lambda: (ChangesGradients(), torch.rand(1, 4)),
    "named outputs": lambda: (GivesNamed(), torch.rand(1, 4)),
    "masks": lambda: (Masks(), 2 * torch.randn(1, 40)),
    "antialiased": lambda: (Antialiased(), torch.rand(1, 3, 6, 6)),
    "a counter": lambda: (Counts(), torch.rand(1, 4)),
    "odd names": lambda: (OddNames(), torch.rand(1, 4)),
    "an optional input": lambda: (Optional(), torch.rand(1, 4)),
    "complex": lambda: (Complex(), torch.rand(1, 6)),
    "numbers": lambda: (nn.Sequential(nn.Embedding(10, 8), nn.GRU(8, 8, batch_first=True)), torch.tensor([[1, 2]])),
}


def repeated(example: Example, times: int) -> tuple[Tensor, ...]:
    inputs = example if isinstance(example, tuple) else (example,)
    return tuple(torch.cat([each] * times) for each in inputs)


def written(format: str, model: nn.Module, example: Example, folder: Path) -> tuple[nn.Module, Sizes]:
    """A model written and read back, and the sizes that it takes."""
    traced = trace(model.eval(), example)
    FORMATS[format].write(traced, folder)
    return FORMATS[format].read(folder, {"sizes": traced.sizes.to_json()}), traced.sizes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", ["safetensors", "pt2"])
def test_every_kind_of_model_comes_back(name: str, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, example = MODELS[name]()
    back, sizes = written(format, model, example, tmp_path)
    assert sizes.any_batch
    with torch.no_grad():
        for count in (1, 3, 7):
            inputs = repeated(example, count)
            torch.testing.assert_close(back(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["structured outputs", "attention", "one or more inputs"])
def test_onnx_gives_flat_outputs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, example = MODELS[name]()
    (back, _), inputs = written("onnx", model, example, tmp_path), repeated(example, 3)
    with torch.no_grad():
        found, wanted = back(*inputs), torch.utils._pytree.tree_leaves(model(*inputs))
    torch.testing.assert_close(list(found) if isinstance(found, tuple) else [found], wanted, rtol=1e-4, atol=1e-5)


class Looks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        branches = [lambda x: x + 1, lambda x: x - 1]
        return torch.cond(x.sum() > 0, *branches, (x,))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (Looks(), "cannot trace the model"),
        (Branches(), "cannot be written as data. Use --format pt2"),
    ],
)
def test_a_model_that_cannot_be_data_is_refused(model: nn.Module, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=complaint):
        written("safetensors", model, torch.ones(1, 2), tmp_path)


def test_a_loaded_model_is_a_module_like_any_other(exported: Path) -> None:
    model = rs.load(exported)
    with torch.no_grad():
        half = model.to(torch.float64)(BATCHES[1].double())
    assert half.dtype == torch.float64
    assert sum(buffer.numel() for buffer in model.buffers()) > 0
    with pytest.raises(TypeError, match="was given 2 inputs; it takes 1"):
        model(BATCHES[0], BATCHES[0])
