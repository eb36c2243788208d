# make demo      a real search on real data, its front, one exported and checked model
# make test      the test suite on all cores, but for what follows
# make faults    the tests that start clusters and kill workers, nodes, drivers and databases: some minutes
# make lint      ruff and mypy --strict
# make wheel     sdist and wheel, installed, used and removed again in fresh environments
# make bounds    each package at the lowest version that pyproject.toml allows
# make docs      the pages that are generated from the code
# make docs-site the documentation as a web site, in runs/site

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export OMP_NUM_THREADS ?= 1

.PHONY: demo test faults lint wheel bounds docs docs-site clean

demo: $(VENV)/.demo
	@$(BIN)/python studies/demo.py $(DEMO)

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not faults and not cluster"

faults: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "faults or cluster"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd studies && MYPYPATH=..:../docs/pictures ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache *.py ../docs/pictures/*.py

wheel: $(VENV)/.installed
	$(BIN)/python .ci/wheel.py

bounds: $(VENV)/.installed
	$(BIN)/python .ci/lower_bounds.py

docs: $(VENV)/.installed
	$(BIN)/python -m rank_search.study.reference > docs/study-file.md
	$(BIN)/python -m rank_search.cli.verb_reference > docs/cli.md

docs-site: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir runs/site

# A demo needs what a user needs; the developers' tools come on top of that, where they are asked for.
$(VENV)/.demo: pyproject.toml setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rank-search needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	rm -rf *.egg-info # an old one here would hide new entry points
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.installed: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
