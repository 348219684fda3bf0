# Every target sets itself up: a fresh machine needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SWEEP ?= sweeps/quickstart.yaml
# Tests by files in a few processes, in the order of the folders: those with a Ray first, the short ones fill the end.
# For one process, which prints as it goes: make test SIDE_BY_SIDE=   One thread each: processes are as many as cores.
SIDE_BY_SIDE ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help setup quickstart test test-faults test-signals check bench bench-in-turn bench-gpu format clean
.DEFAULT_GOAL := help

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## create .venv and install ddray with its tools

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("ddray needs Python 3.11 or newer; set PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

quickstart: setup  ## a real sweep on embedded data, 200 seconds on two cores once installed
	$(BIN)/ddray sweep $(SWEEP)
	@echo "Results: $${DDRAY_HOME:-outputs}/results/quickstart   pictures and curves: $(BIN)/ddray ui"

test: setup  ## the suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-faults: setup  ## faults on real processes and disks, and the tally of what was lost and recomputed after them
	$(BIN)/python -m pytest tests/faults -m faults $(ARGS)

test-signals: setup  ## the rest of the table of signals, executors and moments; a quarter of an hour
	$(BIN)/python -m pytest tests/faults -m every_row $(ARGS)

check: setup  ## format, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## print the figures of docs/benchmarks/
	$(BIN)/python -m benchmarks.run

bench-in-turn: setup  ## time two commands in turn: make bench-in-turn FIRST='…' SECOND='…'
	$(BIN)/python -m benchmarks.in_turn '$(FIRST)' '$(SECOND)'

bench-gpu:  ## on a machine with a card and torch, all that only it can tell, in under ten minutes; writes outputs/gpu/
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --out outputs/gpu $(ARGS)

clean:  ## remove the virtual environment (results stay)
	rm -rf $(VENV)
