# make demo   a real search on real data, its front, one exported and checked model
# make test   the test suite on all cores, but for what follows
# make faults the tests that start clusters and kill workers, nodes, drivers and databases: some minutes
# make lint   ruff and mypy --strict
# make docs   the pages that are generated from the code

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
export OMP_NUM_THREADS ?= 1

.PHONY: demo test faults lint docs clean

demo: $(VENV)/.installed
	@$(BIN)/python studies/demo.py $(DEMO)

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not faults and not cluster"

faults: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "faults or cluster"

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd studies && MYPYPATH=.. ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache *.py ../docs/pictures/*.py

docs: $(VENV)/.installed
	$(BIN)/python -m rank_search.study.reference > docs/study-file.md

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rank-search needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
