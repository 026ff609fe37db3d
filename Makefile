# Everything a user or a contributor runs. `make` alone lists the targets.
# Variables: PYTHON (default python3), VENV (default .venv), ARGS (passed on by run and test).

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

# Material for MkDocs announces the end of its life on every build; the notice is known.
export NO_MKDOCS_2_WARNING := 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test lint format venv docs docs-serve check-container clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Train among lying clients under five rules side by side, and write a report under runs/
	@$(BIN)/matl compare $(ARGS)

test: $(VENV)/.dev ## Run every test and doctest; fails below 95 % coverage
	@$(BIN)/python -m pytest --cov $(ARGS)

lint: $(VENV)/.dev ## Check format, lint, types and that no import runs upward
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

venv: $(VENV)/.dev ## Install the development environment alone

docs: $(VENV)/.dev ## Build the documentation into site/; a warning is an error
	@$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.dev ## Serve the documentation on this machine and rebuild it on every change
	@$(BIN)/mkdocs serve

check-container: ## Try the Containerfile's steps that need no container engine
	@$(PYTHON) .ci/check_container.py

clean: ## Remove environments, caches and build products; runs/ is kept
	rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps, because the demo needs a fraction of what development needs. Both installs are editable, so only a
# change of the dependencies makes them stale.

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing MATL and what the demo needs into $(VENV) (once) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[sim]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the development environment into $(VENV) (once) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@touch $(VENV)/.run $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "MATL needs Python 3.11 or newer, but '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>/dev/null || echo missing)." \
	        "Install one and name it, for example: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
