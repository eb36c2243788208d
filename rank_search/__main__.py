"""`python -m rank_search` is `rank-search`."""

from rank_search.cli import main

main()
