.DEFAULT_GOAL := help
SHELL := /bin/bash
# Python 3.11 under whichever name it has here; PYTHON=/path/to/python3.11 to choose.
PYTHON ?= $(shell for name in python3.11 python3 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
# Test processes side by side, each with a broker of its own; 0: one after the other.
# More than two cores could keep busy: most tests with a broker wait most of the time.
WORKERS ?= 3
BIN := $(VENV)/bin
DISTRIBUTIONS := libs/contracts libs/runtime libs/models infra/local libs/cli \
  services/ingest services/validator services/trainer services/registry \
  services/deployer services/monitor services/scorer services/console

SERVICES := $(patsubst services/%,%,$(filter services/%,$(DISTRIBUTIONS)))
SOURCES := libs services infra
# Where this is set, as on many build machines, each start of a process compiles its
# libraries anew, which takes twice as long as all the rest of the start. So make ignores
# it, and `setup` compiles what the programs import.
unexport PYTHONDONTWRITEBYTECODE
PROGRAMS := driftloop.cli.app driftloop.local driftloop.trainer.child driftloop.models.trial \
  $(SERVICES:%=driftloop.%.app)
UV = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-annotate \
  $(foreach d,$(DISTRIBUTIONS),--no-emit-package driftloop-$(notdir $(d)))

.PHONY: help setup setup-torch demo test chaos lint isolated contracts secrets bench up down lock clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{sub(/:.*/, "", $$1); printf "  \033[1m%-12s\033[0m %s\n", $$1, $$2}'

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "driftloop needs Python 3.11; name it with PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "this Python cannot make environments; on Debian install python3-venv"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'

$(VENV)/.setup: requirements.lock $(addsuffix /pyproject.toml,$(DISTRIBUTIONS)) | $(BIN)/uv
	@echo "installing into $(VENV)"
	@$(UV) pip install --quiet --require-hashes -r requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation $(addprefix -e ./,$(DISTRIBUTIONS))
	@$(BIN)/python -c 'import importlib, sys; [*map(importlib.import_module, sys.argv[1:])]' $(PROGRAMS)
	@touch $@

$(VENV)/.torch: requirements-torch.lock $(VENV)/.setup
	@echo "installing torch (4 GB: its Linux wheel brings CUDA along, used or not)"
	@$(UV) pip install --quiet --require-hashes --no-deps -r requirements-torch.lock
	@touch $@

setup: $(VENV)/.setup  ## Create .venv with everything but torch

setup-torch: $(VENV)/.torch  ## Add torch, for the networks among the candidates

demo: setup  ## Two real years through the whole loop; KEEP=1 leaves it running
	$(BIN)/driftloop demo $(if $(KEEP),--keep)

test: lint  ## Lint, then every test: unit to end-to-end on a real Kafka
	@$(MAKE) --no-print-directory --jobs 2 isolated setup-torch
	$(BIN)/python -m pytest --numprocesses $(WORKERS)

chaos: setup-torch  ## A minute of torch, killed a dozen times at random moments
	DRIFTLOOP_CHAOS=1 $(BIN)/python -m pytest tests/component/test_trainer.py -k minute_of_torch -s

lint: setup  ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports | sed -n '/^Contracts$$/,$$p'; exit $${PIPESTATUS[0]}

isolated: setup  ## Each service's unit tests with only what it declares; SERVICE=trainer for one
	$(BIN)/python infra/isolate.py --uv $(BIN)/uv $(SERVICE)

contracts: setup  ## Write schemas, AsyncAPI document and docs/chain.md anew
	$(BIN)/python -m driftloop.contracts.generate

bench: setup  ## Measure; PART=chain for one part
	$(BIN)/python -m tests.bench $(PART)

secrets: setup  ## Make the passwords and keys for docker-compose.yml
	$(BIN)/python -m driftloop.local.compose_secrets

lock: $(BIN)/uv  ## Compile both locks anew (no addresses in them)
	$(COMPILE) --group pyproject.toml:dev $(addsuffix /pyproject.toml,$(DISTRIBUTIONS)) \
	  --extra faust --extra postgresql --extra data --extra pandera --extra fairness \
	  --extra own --extra search -o requirements.lock
	$(COMPILE) --constraint requirements.lock services/trainer/pyproject.toml --extra torch \
	  -o requirements-torch.lock

clean:  ## Remove environments, caches and build results (not .driftloop)
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

up: setup  ## Start Kafka and all services on this machine
	$(BIN)/driftloop up

down:  ## Stop them; WIPE=1 also deletes their data
	$(BIN)/driftloop down $(if $(WIPE),--wipe)
