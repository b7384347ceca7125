# Everything is installed into .venv from requirements.lock, by plain pip; every target may be run again.
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The first of these that runs and is 3.11 or 3.12; `make PYTHON=...` names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
# A worker that dies ends the run, which would wait for ever where xdist replaces it
GROUPED := --dist loadgroup --max-worker-restart 0

.PHONY: help install search test quick-tests types test-slow test-services test-long lint format docs lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

install: $(INSTALLED)  ## set up .venv

$(INSTALLED): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: make needs Python 3.11 or 3.12; say which by make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

search: $(INSTALLED)  ## look for architectures on scikit-learn's digits, on CPU, in a few minutes
	$(BIN)/python -m nas.search --space hybrid_stages --budget 6cpu-minutes

test: $(INSTALLED)  ## lint, types, import contracts and every test that is not marked slow and needs no server
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j2 quick-tests types

quick-tests:
	$(BIN)/python -m pytest -q -n 2 $(GROUPED) -m "not slow and not services"

types:
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(INSTALLED)  ## the tests that take longer: every size of every model family beside timm
	$(BIN)/python -m pytest -q -n 3 $(GROUPED) -m "slow and not services" --durations=25

test-services: $(INSTALLED)  ## with PostgreSQL and chromium, installed where they are not and this user may; and the documents' commands
	$(BIN)/python -m pytest -q -n 2 $(GROUPED) -m services --durations=10

test-long: $(INSTALLED)  ## both of these in one run
	$(BIN)/python -m pytest -q -n 4 $(GROUPED) -m "slow or services" --durations=40

lint: $(INSTALLED)  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory types

format: $(INSTALLED)  ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## the documentation as a site, build/site/index.html; fetches nothing
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lock:  ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --universal --python-version 3.11 --extra dev --no-emit-package metaformer-nas \
		--no-header --no-annotate -q pyproject.toml -o requirements.lock

clean:  ## remove what the targets made, but no runs
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
