"""Nothing in a file of torch.export.save is run to read it, whoever wrote the file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rank_search.errors import TaskError
from rank_search.programs import read_program
from tests.program_files import (
    ANY_BATCH,
    edited,
    exported,
    normed,
    parts_of,
    pickle_that_makes,
    saved,
    saved_that_makes,
    written,
)

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = exported(normed(), torch.randn(2, 1, 6, 6), shapes=ANY_BATCH)
    return saved(program, tmp_path_factory.mktemp("program") / "model.pt2")


@pytest.fixture(scope="module")
def parts(file: Path) -> dict[str, bytes]:
    return parts_of(file)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder that is made by whoever runs what is in the file."""
    return tmp_path / "made"


def refused(path: Path) -> str:
    with pytest.raises(TaskError, match="cannot be read") as caught:
        read_program(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickles_that_nothing_needs_are_left_alone(tmp_path: Path, parts: dict[str, bytes], made: Path) -> None:
    assert "data/sample_inputs/model.pt" in parts
    also = ("data/sample_inputs/model.pt", "data/constants/custom_obj_0", "data/weights/weight_99", "extra/more.pkl")
    hostile = {**parts, **dict.fromkeys(also, saved_that_makes(made))}
    assert read_program(written(tmp_path / "model.pt2", hostile))(torch.randn(2, 1, 6, 6)).shape == (2, 4)
    assert not made.exists()


@pytest.mark.parametrize("dump", [saved_that_makes, pickle_that_makes])
@pytest.mark.parametrize(
    ("config", "folder", "part"),
    [
        (WEIGHTS, "data/weights/", "weight_0"),
        (CONSTANTS, "data/constants/", "tensor_0"),
        (CONSTANTS, "data/constants/", "custom_obj_0"),
        (CONSTANTS, "data/constants/", "opaque_obj_0"),
    ],
)
def test_pickled_tensors_and_objects_are_refused(
    tmp_path: Path, parts: dict[str, bytes], made: Path, dump: Edit, config: str, folder: str, part: str
) -> None:
    entry = {"path_name": part, "is_param": False, "use_pickle": True, "tensor_meta": None}
    hostile = edited(parts, config, lambda content: content["config"].update({"first.weight": entry}))
    said = refused(written(tmp_path / "model.pt2", {**hostile, folder + part: dump(made)}))
    assert "'first.weight' is pickled, which may run any code" in said
    assert not made.exists()


@pytest.mark.parametrize("part", ["data/weights/model.pt", "data/constants/model.pt"])
def test_states_of_older_versions_are_refused(tmp_path: Path, parts: dict[str, bytes], made: Path, part: str) -> None:
    assert f"{part} is a pickle" in refused(written(tmp_path / "model.pt2", {**parts, part: saved_that_makes(made)}))
    assert not made.exists()


def test_expressions_are_never_evaluated(tmp_path: Path, parts: dict[str, bytes], made: Path) -> None:
    """Of sizes, guards, ranges: where PyTorch's own loader hands text to sympy, which evaluates it."""
    code = f"__import__('os').mkdir({str(made)!r})"

    def spoil(content: Any) -> None:
        graph = content["graph_module"]["graph"]
        for meta in graph["tensor_values"].values():
            meta["sizes"] = [
                {"as_expr": {"expr_str": code, "hint": None}} if "as_expr" in s else s for s in meta["sizes"]
            ]
        graph["sym_int_values"]["s"] = {"as_expr": {"expr_str": code, "hint": {"as_int": 2}}}
        content["range_constraints"] = {code: {"min_val": 0, "max_val": None}}
        content["guards_code"] = [code, f"{code} == 0"]

    found = read_program(written(tmp_path / "model.pt2", edited(parts, MODEL, spoil)))
    assert found(torch.randn(3, 1, 6, 6)).shape == (3, 4)
    guarded = edited(parts, MODEL, lambda content: content.update(guards_code=[f"L['x'].size()[0] == {code}"]))
    assert "a condition that cannot be read" in refused(written(tmp_path / "guarded.pt2", guarded))
    assert not made.exists()


def node(**changes: Any) -> Edit:
    return lambda content: content["graph_module"]["graph"]["nodes"][0].update(changes)


def tensor(name: str, **changes: Any) -> Edit:
    return lambda content: content["config"][name]["tensor_meta"].update(changes)


def renamed(old: str, new: str) -> Edit:
    def edit(content: Any) -> None:
        content["config"] = {new if name == old else name: each for name, each in content["config"].items()}

    return edit


def structured(kind: str) -> Edit:
    def edit(content: Any) -> None:
        signature = content["graph_module"]["module_call_graph"][0]["signature"]
        leaf = {"type": None, "context": None, "children_spec": []}
        signature["out_spec"] = json.dumps([1, {"type": kind, "context": "null", "children_spec": [leaf]}])

    return edit


HUGE = [{"as_int": 10**6}] * 4
CASES: dict[str, tuple[str, Edit, str]] = {
    "a function of Python": (MODEL, node(target="os.system"), "the graph names 'os.system'"),
    "an attribute of a module": (MODEL, node(target="torch.load"), "the graph names 'load'"),
    "a way into a module": (MODEL, node(target="math.__loader__.load_module"), "the graph names"),
    "an operator that opens files": (MODEL, node(target="torch.ops.aten.from_file.default"), "names 'aten.from_file"),
    "an operator that trusts": (MODEL, node(target="torch.ops.aten._cudnn_rnn.default"), "names 'aten._cudnn_rnn"),
    "another namespace": (MODEL, node(target="torch.ops.mine.run.default"), "names 'mine.run.default'"),
    "a private name": (MODEL, node(target="torch.ops.aten.__class__.__init__"), "names 'aten.__class__.__init__'"),
    "an assertion that is none": (
        MODEL,
        node(target="torch.ops.aten.assert.__class__"),
        "names 'aten.assert.__class__'",
    ),
    "a graph in an argument": (
        MODEL,
        node(inputs=[{"name": "a", "arg": {"as_graph": {}}, "kind": 1}]),
        "a call takes 'as_graph'",
    ),
    "an object in an argument": (
        MODEL,
        node(inputs=[{"name": "a", "arg": {"as_custom_obj": {"name": "o", "class_fqn": "os"}}, "kind": 1}]),
        "a call takes 'as_custom_obj'",
    ),
    "a class that returns": (MODEL, structured("os.system"), "it returns a os.system"),
    "a huge tensor": (WEIGHTS, tensor("first.weight", sizes=HUGE), "of the shape (1000000, 1000000"),
    "a huge tensor without strides": (
        WEIGHTS,
        tensor("first.weight", sizes=HUGE, strides=[{"as_int": 0}] * 4),
        "of the shape (1000000, 1000000",
    ),
    "a size that no tensor has": (
        WEIGHTS,
        tensor("first.weight", sizes=[{"as_int": each} for each in (0, 10**30, 3, 3)]),
        "it is damaged",
    ),
    "numbers before the file": (WEIGHTS, tensor("first.weight", storage_offset={"as_int": -8}), "is a whole number"),
    "numbers beyond its part": (WEIGHTS, tensor("norm.bias", storage_offset={"as_int": 1}), "only 32 bytes"),
    "a size that is an expression": (
        WEIGHTS,
        tensor("norm.bias", sizes=[{"as_expr": {"expr_str": "8", "hint": None}}]),
        "it is damaged",
    ),
    "another shape than its layer's": (
        WEIGHTS,
        tensor("norm.bias", sizes=[{"as_int": 2}]),
        "norm.bias is of another shape",
    ),
    "a way up": (WEIGHTS, renamed("norm.num_batches_tracked", "../../up"), "it is damaged"),
    "an empty name": (WEIGHTS, renamed("norm.num_batches_tracked", ""), "it is damaged"),
    "a name of a module's own": (WEIGHTS, renamed("norm.num_batches_tracked", "forward"), "'forward' already exists"),
    "a name of its state": (WEIGHTS, renamed("norm.num_batches_tracked", "_modules.x"), "'_modules' already exists"),
    "a part elsewhere": (
        WEIGHTS,
        lambda content: content["config"]["norm.bias"].update(path_name="weight_/../../../models/model.json"),
        "lies in a part that is called",
    ),
    "a later version": (MODEL, lambda content: content["schema_version"].update(major=9), "in version 9"),
    "no outputs of its own": (
        MODEL,
        lambda content: content["graph_module"]["graph"]["nodes"].pop(),
        "is used before it is made",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused(tmp_path: Path, parts: dict[str, bytes], case: str) -> None:
    name, edit, said = CASES[case]
    assert said in refused(written(tmp_path / "model.pt2", edited(parts, name, edit)))


def test_what_is_no_such_archive(tmp_path: Path, parts: dict[str, bytes]) -> None:
    path = tmp_path / "model.pt2"
    with pytest.raises(TaskError, match="There is no file"):
        read_program(path)
    path.write_bytes(saved_that_makes(tmp_path / "made")[5:])
    assert "no archive that torch.export.save of" in refused(path)
    path.write_bytes(b"no archive at all")
    assert "no archive that torch.export.save writes" in refused(path)
    later = bytearray(written(path, {"archive_format": b"pt2"}).read_bytes())
    later[later.rindex(b"PK\1\2") + 6] = 205  # the version of the format that is needed
    path.write_bytes(later)
    assert "zip file version 20.5" in refused(path)
    assert "0 exported programs" in refused(written(path, {"archive_format": b"pt2"}))
    assert "2 exported programs" in refused(written(path, {**parts, "models/other.json": parts[MODEL]}))
    assert "weights_config.json is missing" in refused(
        written(path, {name: each for name, each in parts.items() if name != WEIGHTS})
    )
    assert "big-endian" in refused(written(path, {**parts, "byteorder": b"big"}))
    deep = b"[" * 100_000
    assert "damaged" in refused(written(path, {**parts, MODEL: deep}))


def test_no_more_is_read_than_the_file_is_long(tmp_path: Path, parts: dict[str, bytes]) -> None:
    """Compressed zeros, and parts that lie over each other."""
    path = tmp_path / "model.pt2"
    bomb = {**parts, "data/weights/weight_0": bytes(10**7)}
    assert "is compressed" in refused(written(path, bomb, ZIP_DEFLATED))
    written(path, parts)
    content = path.read_bytes()
    size = len(parts["data/weights/weight_0"]).to_bytes(4, "little")
    spoiled = content.replace(size + size, b"\xff\xff\xff\x7f" * 2)
    assert spoiled != content
    path.write_bytes(spoiled)
    assert "said to be longer than the file is" in refused(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), part=st.sampled_from([MODEL, WEIGHTS]))
def test_whatever_is_changed_it_is_read_or_refused(tmp_path: Path, file: Path, seed: int, part: str) -> None:
    draw, parts = random.Random(seed), parts_of(file)
    content = json.loads(parts[part])
    for _ in range(draw.randint(1, 3)):
        _change(content, draw)
    with suppress(TaskError):
        read_program(written(tmp_path / "model.pt2", {**parts, part: json.dumps(content).encode()}))


def _change(content: Any, draw: random.Random) -> None:
    """Put something else in a place, deep or not, or take it out."""
    values: list[Any] = [None, -1, 0, 10**30, 1.5, "", "x", "..", [], {}, True, {"as_int": 10**12}, [[1]], "a" * 100]
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = draw.choice(keys)
        inside = content[key]
        if not isinstance(inside, dict | list) or not inside or draw.random() < 0.1:
            break
        content = inside
    if draw.random() < 0.2:
        del content[key]
    else:
        content[key] = draw.choice(values)
