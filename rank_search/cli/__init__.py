"""The command line: one verb a room. Heavy libraries are imported by the verbs that need them."""

from rank_search.cli.main import app, main

__all__ = ["app", "main"]
