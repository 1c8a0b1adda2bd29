# make demo      environment, then the whole chain on data it makes itself
# make test      environment, then the suite
# make test-all  the suite with the slow cases
# make env       the environment alone, in .venv
# make bench     everything in benchmarks/, onto docs/benchmarks.md (five to ten minutes)
# make fuzz      atheris on every parser, a few seconds each (docs/formats.md)
# make vot-env   the official VOT toolkit, in .venv-vot, for the tests of tests/interop that run it
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all env bench fuzz vot-env

env: .venv/.installed

.venv/.installed: pyproject.toml
	@echo "environment: installing into .venv (a few minutes; torch's normal builds take about 5 GB)"
	@$(PYTHON) -m venv .venv
	@{ $(BIN)/python -m pip install --quiet --upgrade pip && \
	   $(BIN)/python -m pip install --quiet --editable '.[test]'; } > .venv/install.log 2>&1 || { cat .venv/install.log; exit 1; }
	@touch $@

vot-env: .venv-vot/.installed

# Its own environment: the toolkit's dependencies would replace ours. 0.7.4 is the last release that can run an
# experiment with resets (0.8 and 0.9 refuse every tracker there), 0.9.0 does everything else.
.venv-vot/.installed: tests/interop/vot_requirements.txt
	@echo "environment: installing the official VOT toolkit into .venv-vot (half a minute)"
	@$(PYTHON) -m venv .venv-vot
	@{ .venv-vot/bin/python -m pip install --quiet --requirement tests/interop/vot_requirements.txt && \
	   .venv-vot/bin/python -m pip install --quiet --no-deps vot-toolkit==0.9.0 && \
	   .venv-vot/bin/python -m pip install --quiet --no-deps --target .venv-vot/resets vot-toolkit==0.7.4; \
	 } > .venv-vot/install.log 2>&1 || { cat .venv-vot/install.log; exit 1; }
	@touch $@

demo: env
	$(BIN)/python scripts/demo.py

# A file's tests share what they make, so a file goes to one process; one torch thread each, or they fight for cores.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: env
	$(TEST) -m "not slow"

test-all: env
	$(TEST)

bench: env
	$(BIN)/python -m benchmarks

# SECONDS=60 for each parser instead of 5; ONLY=checkpoint for those whose name holds that word.
fuzz: SECONDS ?= 5
fuzz: env
	$(BIN)/python -m tests.fuzz.atheris_parsers --seconds $(SECONDS) --only "$(ONLY)"
