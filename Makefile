.DEFAULT_GOAL := help
SHELL := /bin/bash
# Python 3.11 under whichever name it has here; PYTHON=/path/to/python3.11 to choose.
PYTHON ?= $(shell for name in python3.11 python3 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
# The version of MLflow that its tests speak to; its answers are recorded from it.
MLFLOW := 3.17.2
# The client of the Open Inference Protocol that the scorer's tests speak with.
TRITON := 2.73.0
# Builders of dashboards: of Grafana 11.6, which 12 takes as well. Its versions have epochs.
GRAFANA_SDK := 1769699379!11.6.0
# Test processes side by side, each with a broker of its own; 0: one after the other.
# More than two cores could keep busy: most tests with a broker wait most of the time.
WORKERS ?= 3
BIN := $(VENV)/bin
DISTRIBUTIONS := libs/contracts libs/runtime libs/models libs/detection infra/local libs/cli \
  services/ingest services/validator services/trainer services/registry \
  services/deployer services/monitor services/scorer services/console libs/backtest

SERVICES := $(patsubst services/%,%,$(filter services/%,$(DISTRIBUTIONS)))
SOURCES := libs services infra
# Where this is set, as on many build machines, each start of a process compiles its
# libraries anew, which takes twice as long as all the rest of the start. So make ignores
# it, and `setup` compiles what the programs import.
unexport PYTHONDONTWRITEBYTECODE
PROGRAMS := driftloop.cli.app driftloop.local driftloop.trainer.child driftloop.models.trial driftloop.backtest.run \
  $(SERVICES:%=driftloop.%.app)
UV = VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-annotate \
  $(foreach d,$(DISTRIBUTIONS),--no-emit-package driftloop-$(notdir $(d)))

.PHONY: help setup setup-broker setup-torch setup-ray setup-mlflow setup-triton setup-prometheus dashboards mlflow-answers protocol demo test fuzz simulate test-gpu chaos lint isolated contracts kubernetes kubernetes-secrets migration secrets bench up traces down lock clean

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

$(VENV)/.ray: requirements-ray.lock $(VENV)/.setup
	@echo "installing Ray (220 MB), a cluster of which the tests start"
	@$(UV) pip install --quiet --require-hashes --no-deps -r requirements-ray.lock
	@$(BIN)/python -m compileall -q $(VENV)/lib/python3*/site-packages/ray/{dashboard,_private,_common,autoscaler,util} || true
	@touch $@

setup: $(VENV)/.setup  ## Create .venv with everything but torch

setup-broker: setup  ## Make every later start of Kafka on this machine twice as fast
	@$(BIN)/python -m driftloop.local.recording

setup-torch: $(VENV)/.torch  ## Add torch, for the networks among the candidates

setup-ray: $(VENV)/.ray  ## Add Ray, for the tests of trainings on other machines

$(VENV)-mlflow/.setup: requirements-mlflow.lock | $(BIN)/uv
	@echo "installing MLflow's client into $(VENV)-mlflow"
	@$(PYTHON) -m venv $(VENV)-mlflow
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)-mlflow $(BIN)/uv pip install --quiet --require-hashes -r requirements-mlflow.lock
	@touch $@

setup-mlflow: $(VENV)-mlflow/.setup  ## MLflow's client, for its tests, in an environment of its own

$(VENV)-triton/.setup: requirements-triton.lock | $(BIN)/uv
	@echo "installing Triton's client into $(VENV)-triton"
	@$(PYTHON) -m venv $(VENV)-triton
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)-triton $(BIN)/uv pip install --quiet --require-hashes -r requirements-triton.lock
	@touch $@

setup-triton: $(VENV)-triton/.setup  ## Triton's client, for the scorer's tests, in an environment of its own

$(VENV)-prometheus/.setup:
	@echo "fetching Prometheus (19 MB) into $(VENV)-prometheus: Debian's package, not installed"
	@mkdir -p $(VENV)-prometheus/{lists,archives}/partial
	@cd $(VENV)-prometheus && apt='timeout 180 apt-get --quiet=2 -o APT::Sandbox::User=root -o Acquire::http::Timeout=20 -o Acquire::Retries=0 -o Dir::State::Lists=lists -o Dir::Cache::Archives=archives' && \
	  $$apt update && $$apt download prometheus && dpkg -x prometheus_*.deb . && rm -rf lists archives *.deb
	@touch $@

setup-prometheus: $(VENV)-prometheus/.setup  ## Prometheus, for the tests of rules and dashboards; needs apt, no rights

mlflow-answers: setup setup-mlflow  ## Record what MLflow's own server answers (installs it for that)
	$(BIN)/python -m tests.component.mlflow_answers

demo: setup  ## Two real years through the whole loop; KEEP=1 leaves it running
	$(BIN)/driftloop demo $(if $(KEEP),--keep)

test: lint  ## Lint, then every test: unit to end-to-end on a real Kafka
	@$(MAKE) --no-print-directory --jobs 2 isolated setup-torch setup-ray setup-mlflow setup-triton
	-@$(MAKE) --no-print-directory setup-broker setup-prometheus
	$(BIN)/python -m pytest -m ray tests/component
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --durations=30 --durations-min=20 -m "not ray"

chaos: setup setup-torch  ## Faults to a running installation, then every invariant; SEEDS=10 FAULTS=24 FIRST=7
	DRIFTLOOP_CHAOS=1 DRIFTLOOP_CHAOS_SEEDS=$(or $(SEEDS),1) DRIFTLOOP_CHAOS_FAULTS=$(or $(FAULTS),12) \
	  DRIFTLOOP_CHAOS_FIRST=$(or $(FIRST),$$RANDOM) $(BIN)/python -m pytest tests/chaos -s
	DRIFTLOOP_CHAOS=1 $(BIN)/python -m pytest tests/component/test_trainer.py -k minute_of_torch -s

fuzz: setup setup-torch  ## Property tests with new examples at random; FUZZ=20 times as many
	DRIFTLOOP_FUZZ=$(or $(FUZZ),20) $(BIN)/python -m pytest $$(grep -rl --include='*.py' '@given' tests/unit) tests/component/test_api.py

simulate: setup  ## Histories at random with kills and outages (docs/reliability.md); SEEDS=2000 WORLD=chain FIRST=7
	$(BIN)/python -m tests.simulation $(or $(SEEDS),2000) $(if $(WORLD),--world $(WORLD)) $(if $(FIRST),--first $(FIRST))

test-gpu: setup-torch  ## Networks' tests on the GPU that is here; then its figures
	@$(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "torch finds no GPU")'
	$(BIN)/python -m pytest tests/unit/trainer/test_devices.py
	$(BIN)/python -m tests.bench devices

lint: setup  ## ruff, mypy, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	@$(BIN)/lint-imports | sed -n '/^Contracts$$/,$$p'; exit $${PIPESTATUS[0]}

isolated: setup  ## Each service's unit tests with only what it declares; SERVICE=trainer for one
	$(BIN)/python infra/isolate.py --uv $(BIN)/uv $(SERVICE)

contracts: setup  ## Write schemas, AsyncAPI document and docs/chain.md anew
	$(BIN)/python -m driftloop.contracts.generate

protocol: setup  ## Write the messages of the Open Inference Protocol anew from their .proto
	cd services/scorer && ../../$(BIN)/uv run --quiet --no-project --with grpcio-tools==1.85.1 \
	  python -m grpc_tools.protoc -I . --python_out=. driftloop/scorer/open_inference/open_inference.proto

dashboards: setup  ## Write dashboards, rules of the objectives and docs/metrics.md anew
	$(BIN)/uv run --quiet --no-project --with 'grafana-foundation-sdk==$(GRAFANA_SDK)' python infra/grafana/write.py
	$(BIN)/python infra/prometheus/write_slos.py
	$(BIN)/python infra/prometheus/write_metrics_page.py

bench: setup  ## Measure; PART=chain for one part
	$(BIN)/python -m tests.bench $(PART)

migration: setup  ## Write the next step of a database; SERVICE=registry (or runtime) WHAT="what changes"
	@$(BIN)/python -m driftloop.runtime.migrating $(SERVICE) "$(WHAT)"
	@$(BIN)/ruff format --quiet libs services; $(BIN)/ruff check --quiet libs services

secrets: setup  ## Make the passwords and keys for docker-compose.yml
	$(BIN)/python -m driftloop.local.compose_secrets

kubernetes: setup  ## Write Kafka's topics and users for Kubernetes anew
	$(BIN)/python -m driftloop.local.kubernetes

kubernetes-secrets: setup  ## Make the Secrets for infra/kubernetes; POSTGRES=host:port
	@$(BIN)/python -m driftloop.local.kubernetes_secrets $(POSTGRES)

lock: $(BIN)/uv  ## Compile the locks anew (no addresses in them)
	$(COMPILE) --group pyproject.toml:dev $(addsuffix /pyproject.toml,$(DISTRIBUTIONS)) \
	  --extra faust --extra postgresql --extra data --extra pandera --extra fairness \
	  --extra own --extra search --extra remote -o requirements.lock
	$(COMPILE) --constraint requirements.lock services/trainer/pyproject.toml --extra torch \
	  -o requirements-torch.lock
	$(COMPILE) --constraint requirements.lock --constraint requirements-torch.lock --group pyproject.toml:ray \
	  -o requirements-ray.lock
	printf '%s\n' 'mlflow-skinny==$(MLFLOW)' numpy pandas | $(COMPILE) - -o requirements-mlflow.lock
	printf '%s\n' 'tritonclient[http,grpc]==$(TRITON)' | $(COMPILE) - -o requirements-triton.lock

clean:  ## Remove environments, caches and build results (not .driftloop)
	rm -rf $(VENV) $(VENV)-mlflow $(VENV)-triton $(VENV)-prometheus build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

up: setup  ## Start Kafka and all services on this machine
	$(BIN)/driftloop up

traces: setup  ## Show the traces of all chains in Zipkin; HOME_OF=.driftloop/demo for the demo's
	$(BIN)/driftloop traces $(if $(HOME_OF),--home $(HOME_OF))

down:  ## Stop them; WIPE=1 also deletes their data
	$(BIN)/driftloop down $(if $(WIPE),--wipe)
