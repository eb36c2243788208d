"""A packed model back into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rank_search.basics import publish
from rank_search.coding import to_safetensors
from rank_search.export.loading import CODED, GRAPH, MANIFEST, TENSORS, files_in, load
from rank_search.export.packed_file import LARGEST, read_packed
from rank_search.export.whole import check_free, made_whole


def unpack_file(path: Path, folder: Path, largest: int = LARGEST) -> dict[str, Any]:
    """Write a packed model into a new folder, as `rank-search export` would have, and return its manifest.

    Args:
        largest: as in `rank_search.load`.

    Raises:
        ExportError: the folder exists already or cannot be written, or the file is no packed model or damaged;
            nothing is left then.
    """
    folder = Path(folder)
    check_free(folder, "unpacking makes a new folder")
    packed = read_packed(Path(path))
    tensors = packed.tensors(largest)
    graph = packed.manifest["graph"]
    packed.model(largest)
    with made_whole(folder) as temporary:
        (temporary / GRAPH).write_text(json.dumps(graph), encoding="utf-8")
        named = {node["target"] for node in graph["nodes"] if node["op"] == "tensor"}
        (temporary / TENSORS).write_bytes(to_safetensors({name: tensors[name] for name in named}))
        (temporary / CODED).write_bytes(packed.payload)
        hidden = ("graph", "payload_sha256", "constants_sha256")
        about = {key: value for key, value in packed.manifest.items() if key not in hidden}
        manifest = about | {"format": "safetensors", "fused": False, "files": files_in(temporary)}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        load(temporary)
        publish(temporary, folder)
    return manifest
