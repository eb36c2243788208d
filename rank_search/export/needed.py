"""What nothing in a traced model uses is left out of it."""

from __future__ import annotations

from torch.export import ExportedProgram


def only_needed(program: ExportedProgram) -> ExportedProgram:
    """The program without operators whose values nothing uses, so that it runs what is counted.

    Inputs stay, and so do checks and all that changes a tensor in place.
    """
    if program.graph.eliminate_dead_code():
        program.graph_module.recompile()
    return program
