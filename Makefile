# Everything a user or a contributor runs. `make` alone lists the targets.
# Variables: PYTHON (default python3), VENV (default .venv), ARGS (passed on by run and test).

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

# Material for MkDocs announces the end of its life on every build; the notice is known.
export NO_MKDOCS_2_WARNING := 1

BIN := $(VENV)/bin
FLOWER_VENV := .venv-flower
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test lint format venv venv-all docs docs-serve bench-aggregators bench-simulate bench-trust bench-judging-memory bench-codec bench-private-training bench-private-attack bench-secagg bench-privacy-figures bench-noise bench-service soak crash fuzz api api-check gpu-report check-container clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## Train among lying clients under six rules side by side, and write a report under runs/
	@$(BIN)/matl compare $(ARGS)

test: $(VENV)/.dev ## Run every test and doctest; fails below 95 % coverage. Without torch it names the tests that wait for it
	@$(BIN)/python -m pytest --cov -n logical --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## Check format, lint, types and that no import runs upward
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and mend what the linter can
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

venv: $(VENV)/.dev ## Install the development environment alone

venv-all: $(VENV)/.all ## Install the development environment with every extra, torch among them

docs: $(VENV)/.all ## Build the documentation into site/ and run its notebooks; a warning is an error
	@$(BIN)/mkdocs build --strict

docs-serve: $(VENV)/.all ## Serve the documentation on this machine and rebuild it on every change; notebooks are not run
	@MATL_RUN_NOTEBOOKS=false $(BIN)/mkdocs serve

bench-aggregators: $(VENV)/.all ## Compare the speed, memory and answers of the aggregation rules with ByzFL's; takes minutes
	@$(BIN)/python benchmarks/aggregators.py $(ARGS)

bench-simulate: $(VENV)/.run $(FLOWER_VENV)/.installed ## Compare speed and memory with Flower's simulation of the same task; takes minutes
	@$(BIN)/python benchmarks/simulation_speed.py --flower $(FLOWER_VENV)/bin/python $(ARGS)

bench-trust: $(VENV)/.run ## Measure what judging costs beside plain averaging, in time, rounds and memory; a quarter of an hour
	@$(BIN)/python benchmarks/trust.py $(ARGS)

bench-judging-memory: $(VENV)/.run ## Measure the memory that judging 200 updates of 40 MB takes; half an hour and 17 GB of disk, deleted after
	@$(BIN)/python benchmarks/judging_memory.py $(ARGS)

bench-codec: $(VENV)/.all ## Measure bits, error and speed of private updates beside what else could be sent; takes minutes
	@$(BIN)/python benchmarks/codec.py $(ARGS)

bench-private-training: $(VENV)/.run ## Train under differential privacy, ours beside central noise and none; a quarter of an hour
	@$(BIN)/python benchmarks/private_training.py $(ARGS)

bench-private-attack: $(VENV)/.run ## Attack private sums, of all clients and of random groups, and measure what survives; half an hour
	@$(BIN)/python benchmarks/private_attack.py $(ARGS)

bench-secagg: $(VENV)/.run ## Measure secure aggregation end to end on a simulated network; takes minutes
	@$(BIN)/python benchmarks/secagg.py $(ARGS)

bench-privacy-figures: $(VENV)/.dev ## Make the figures of the privacy document anew; a minute
	@$(BIN)/python benchmarks/privacy_figures.py $(ARGS)

bench-noise: $(VENV)/.run ## Measure how long noise and private encoding take, up to one in a thousand; minutes
	@$(BIN)/python benchmarks/noise_latency.py $(ARGS)

bench-service: $(VENV)/.dev $(FLOWER_VENV)/.installed ## Compare rounds per second with a Flower SuperLink deployment of the same task; takes minutes
	@$(BIN)/python benchmarks/service.py --flower $(FLOWER_VENV)/bin $(ARGS)

soak: $(VENV)/.dev ## Send 1,000 clients through 20 rounds over HTTP and gRPC, and count every update; a quarter of an hour
	@$(BIN)/python benchmarks/soak.py $(ARGS)

crash: $(VENV)/.dev ## Kill a coordinator 200 times under load, on SQLite and PostgreSQL, and check what is left; half an hour
	@$(BIN)/python benchmarks/crash.py $(ARGS)

fuzz: $(VENV)/.dev ## Throw bytes at every decoder, guided by coverage; half an hour. ARGS="--seconds 60" for longer
	@$(PIP) install --constraint constraints.txt atheris
	@$(BIN)/python -m tests.fuzz.run_atheris $(ARGS)

api: $(VENV)/.dev ## Write the interface documents under docs/api/ anew
	@$(BIN)/python -m matl.coordinator.interface --write docs/api
	@$(BIN)/python -m matl.oracle.interface --write docs/api

api-check: $(VENV)/.dev ## Check that the documents under docs/api/ are what coordinator and oracle serve, over gRPC too
	@$(BIN)/python -m matl.coordinator.interface --check docs/api
	@$(BIN)/python -m matl.oracle.interface --check docs/api
	@$(BIN)/python proto/generate.py --check

gpu-report: $(VENV)/.all ## Check torch on a GPU against the CPU, measure both, and rewrite docs/gpu-validation.md
	@$(BIN)/python benchmarks/gpu_report.py

check-container: ## Try the Containerfile's steps that need no container engine
	@$(PYTHON) .ci/check_container.py

clean: ## Remove environments, caches and build products; runs/ is kept
	rm -rf $(VENV) $(FLOWER_VENV) build dist site htmlcov .coverage .coverage.* .hypothesis
	rm -rf .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Three stamps: the demo and `matl up` need a fraction of what development needs, and development little of what every extra is.
# All installs are editable, so only a change of the dependencies makes them stale.

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing MATL and what the demo and a network need into $(VENV) (once) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[sim,server]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the development environment into $(VENV) (once) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[dev]"
	@touch $(VENV)/.run $@

$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing the development environment and every extra into $(VENV) (once) ..."
	@$(PIP) install --constraint constraints.txt --editable ".[dev,all]"
	@$(PIP) install --no-deps byzfl==0.0.11 # the peer of tests and benchmarks; torch is all that its rules need
	@$(PIP) install --no-deps dp-accounting==0.6.0 absl-py==2.5.1 dm-tree==0.1.10 # a referee that pins an old attrs
	@touch $(VENV)/.run $(VENV)/.dev $@

# Flower pins other versions of what MATL uses, so it gets an environment of its own, with MATL's code in it.
$(FLOWER_VENV)/.installed: pyproject.toml benchmarks/flower/requirements.txt
	@echo "Installing Flower and MATL into $(FLOWER_VENV) (once) ..."
	@$(PYTHON) -m venv --clear $(FLOWER_VENV)
	@$(FLOWER_VENV)/bin/python -m pip --quiet --disable-pip-version-check install \
	    --requirement benchmarks/flower/requirements.txt --editable .
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "MATL needs Python 3.11 or newer, but '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>/dev/null || echo missing)." \
	        "Install one and name it, for example: make PYTHON=python3.12 run" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
