"""rank-search."""
