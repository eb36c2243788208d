"""The manifest of a packed model in few bytes: a network that stands for one picture weighs less than its JSON would.

A graph is written step by step, each tensor just before its first use, and a value by how many steps ago it was made:
so layers that repeat are the same text, which deflate, begun with a dictionary of what manifests are made of, repeats
for two bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

LONGEST: Final = 1 << 26
"""Bytes of a manifest, deflated or not."""

NEEDED: Final = ("graph", "sizes", "draws", "study", "trial")
"""What a file holds however small it is: what loading needs, and where the rest can be looked up."""

SHARE: Final = 16
"""All else is written if it takes no more than a sixteenth of the payload."""

_LEVEL: Final = 9
_RAW: Final = -15
_USUAL: Final[Mapping[str, Any]] = {"format": "rsz", "draws": False}
_STRUCTURE: Final = 0  # one output, as it is

# A change here makes another version of the file.
_DICTIONARY: Final = (
    b'"layers":"penalties":{"orthogonality":0.0,"entropy":"sparsity":"measurements":{"dense":"error":"psnr":'
    b'"latency_ratio":"latency":"bits_per_sample":"nonzeros":"bits":"macs":"params":"any_batch":true,"inputs":[[1,'
    b'"rank_search":"factorization":"svd""tucker2""rank":"slope":,"study":"trial":,"arguments":"parameters":"fixed":'
    b'"structure":"conditions":[]"ranges":{"batch":[1,null]},"shapes":[["batch",1,"names":["input_ids"["x"["input"'
    b'"sizes":{"names":["input"],"shapes":[["batch",2]],"ranges":{"batch":[1,null]},"conditions":[]}'
    b'{"op":"input","name":"x"}{"dtype":"float32"}"graph":{"nodes":["weight"],["bias"],["body.0.weight"],["first"'
    b'["aten.batch_norm.default",["aten.max_pool2d.default",["aten.avg_pool2d.default",["aten.conv2d.default",'
    b'["aten.view.default",["aten.reshape.default",["aten.flatten.using_ints",["aten.cat.default",[["'
    b'["aten.permute.default",["aten.unsqueeze.default",["aten.slice.Tensor",["aten.select.int",["aten.cos.default",'
    b'["aten.grid_sampler.default",["aten.add.Tensor",["aten.sigmoid.default",["1"]],["aten.tanh.default",["1"]],'
    b'["aten.relu.default",["1"]],["aten.linear.default",["3","2"]],["0.weight"],["0.bias"],'
    b'["aten.mul.Tensor",["1",30.0]],["aten.sin.default",["1"]],["2.weight"],["2.bias"],'
    b'["aten.linear.default",["3","2","1"]],["1"]]}'
)


def deflated(manifest: Mapping[str, Any], payload: int) -> bytes:
    """The manifest of a file.

    Args:
        payload: its bytes, which decide how much is said of the trial.
    """
    needed = {key: value for key, value in manifest.items() if key in NEEDED}
    short, whole = _deflated(needed), _deflated(manifest)
    return whole if len(whole) - len(short) <= payload // SHARE else short


def inflated(content: bytes) -> dict[str, Any]:
    """A manifest read back; `ValueError` or `zlib.error` if it is none."""
    inflater = zlib.decompressobj(_RAW, _DICTIONARY)
    text = inflater.decompress(content, LONGEST)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is cut, or too long")
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get("graph"), dict):
        raise ValueError("it has no graph")
    return {**_USUAL, **found, "graph": _lengthened(found["graph"])}


def _deflated(manifest: Mapping[str, Any]) -> bytes:
    content = {key: value for key, value in manifest.items() if _USUAL.get(key, ...) != value}
    text = json.dumps({**content, "graph": _shortened(content["graph"])}, separators=(",", ":"), ensure_ascii=False)
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return deflater.compress(text.encode()) + deflater.flush()


# ---- graphs ----------------------------------------------------------------------------------------------
# A node is a list: ["name"] a tensor of the state; [operator, arguments] or [operator, arguments, named ones] a call;
# the last node has the outputs alone, as [[outputs]]. An input stays as it is in a graph. In arguments a text is how
# many nodes ago a value was made; texts of its own are {"text": …}.


def _shortened(graph: Mapping[str, Any]) -> dict[str, Any]:
    nodes: list[Any] = []
    place: dict[str, int] = {}
    for node in _just_in_time(graph["nodes"]):
        nodes.append(_short_node(node, place, len(nodes)))
        if "name" in node:
            place[node["name"]] = len(nodes) - 1
    rest = {key: value for key, value in graph.items() if key != "nodes"}
    if rest.get("structure") == _STRUCTURE:
        del rest["structure"]
    return {**rest, "nodes": nodes}


def _just_in_time(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The inputs, then all else in order, each tensor before the call that uses it first."""
    waiting = {node["name"]: node for node in nodes if node["op"] == "tensor"}
    yield from (node for node in nodes if node["op"] == "input")
    for node in nodes:
        if node["op"] in ("call", "output"):
            used = _names_in([node["args"], list(node.get("kwargs", {}).values())])
            yield from [waiting.pop(name) for name in used if name in waiting]
            yield node


def _names_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and "node" in value:
        yield value["node"]
    elif isinstance(value, list):
        for each in value:
            yield from _names_in(each)


def _short_node(node: Mapping[str, Any], place: Mapping[str, int], now: int) -> Any:
    if node["op"] == "input":
        return dict(node)
    if node["op"] == "tensor":
        return [node["target"]]
    args = _short_value(node["args"], place, now)
    if node["op"] == "output":
        return [args]
    named = {key: _short_value(each, place, now) for key, each in node["kwargs"].items()}
    return [node["target"], args, named] if named else [node["target"], args]


def _short_value(value: Any, place: Mapping[str, int], now: int) -> Any:
    if isinstance(value, list):
        return [_short_value(each, place, now) for each in value]
    if isinstance(value, dict) and "node" in value:
        return str(now - place[value["node"]])
    return {"text": value} if isinstance(value, str) else value


def _lengthened(graph: Mapping[str, Any]) -> dict[str, Any]:
    names: list[str] = []
    nodes = []
    for each in graph["nodes"]:
        node = _long_node(each, names)
        names.append(str(node.get("name", "")))
        nodes.append(node)
    return {"structure": _STRUCTURE, **graph, "nodes": nodes}


def _long_node(short: Any, names: list[str]) -> dict[str, Any]:
    if isinstance(short, dict):
        return {"op": "input", "name": str(short["name"])}
    own = f"step {len(names)}"
    if len(short) == 1 and isinstance(short[0], list):
        return {"op": "output", "args": _long_value(short[0], names)}
    if len(short) == 1:
        return {"op": "tensor", "name": own, "target": str(short[0])}
    named = short[2] if len(short) > 2 else {}
    kwargs = {str(key): _long_value(each, names) for key, each in named.items()}
    return {"op": "call", "name": own, "target": str(short[0]), "args": _long_value(short[1], names), "kwargs": kwargs}


def _long_value(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_long_value(each, names) for each in value]
    if isinstance(value, str):
        return {"node": names[-int(value)]}
    return value["text"] if isinstance(value, dict) and "text" in value else value
