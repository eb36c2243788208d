"""Load an exported folder, which needs neither the store nor the search, and measure it on the digits' test images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from digits import splits

import rank_search as rs


def main(folder: Path) -> None:
    """Print what the exported model does beside what the dense one did."""
    model = rs.load(folder)
    images, labels = splits()[2]
    with torch.no_grad():
        error = float((model(images).argmax(-1) != labels).double().mean())
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    measured, dense = manifest["measurements"], manifest["dense"]
    if error != measured["test_error"]:
        sys.exit(f"The exported model has a test error of {error}, the store says {measured['test_error']}.")
    coded = (folder / "model.coded").stat().st_size
    sys.stdout.write(
        f"The exported model works: test error {error:.2%} (dense {dense['test_error']:.2%}), "
        f"{dense['macs'] / measured['macs']:.1f}× fewer MACs, {coded:,} bytes coded, "
        f"{dense['bits'] / measured['bits']:.1f}× fewer bits than the 32-bit dense model.\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
