# make demo      environment, then the whole chain on data it makes itself
# make test      environment, then the suite
# make test-all  the suite with the slow cases
# make env       the environment alone, in .venv
# make bench     everything in benchmarks/
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all env bench

env: .venv/.installed

.venv/.installed: pyproject.toml
	@echo "environment: installing into .venv (a few minutes; torch's normal builds take about 5 GB)"
	@$(PYTHON) -m venv .venv
	@{ $(BIN)/python -m pip install --quiet --upgrade pip && \
	   $(BIN)/python -m pip install --quiet --editable '.[test]'; } > .venv/install.log 2>&1 || { cat .venv/install.log; exit 1; }
	@touch $@

demo: env
	$(BIN)/python scripts/demo.py

test: env
	$(BIN)/python -m pytest -m "not slow"

test-all: env
	$(BIN)/python -m pytest

bench: env
	$(BIN)/python -m benchmarks
