# `make demo` and `make test` need nothing but python3 (3.11 or newer) with venv; a C++ compiler makes them faster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

# Where torch comes from, e.g. https://download.pytorch.org/whl/cpu: a tenth of the download where there is no GPU.
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check

.PHONY: setup demo demo-long test lint soak sanitize gpu-check clean
# What the demo needs, what all commands need, and what the tests compare with.
$(VENV)/.demo: EXTRAS := offline-metrics
$(VENV)/.all: EXTRAS := all
$(VENV)/.dev: EXTRAS := all,dev
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev

setup: $(VENV)/.all

$(VENV)/.demo $(VENV)/.all $(VENV)/.dev: pyproject.toml constraints.txt requirements-nodeps.txt requirements-peers.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(PIP) --no-deps --requirement requirements-nodeps.txt
	$(if $(filter %.dev,$@),$(PIP) --no-deps --requirement requirements-peers.txt)
	touch $@

# Trains a preset, then samples, draws and measures what it has come to.
define shown
	$(BIN)/python train.py --cfg=$(1) --outdir=$(2)
	set -e; run=$$(ls -d $(2)/[0-9]* | tail -n 1); network=$$(ls $$run/network-snapshot-*.pkl | tail -n 1); \
	$(BIN)/python generate.py grid --network=$$network --seeds=0-79 --columns=16 --scale=2 --out=$$run/samples.png; \
	$(BIN)/python -m training.sampling.demo --run=$$run
endef

demo: $(DEMO)
	$(call shown,demo,out/demo)

# The same recipe left alone: about an hour.
demo-long: $(DEMO)
	$(call shown,demo_long,out/demo-long)

test: $(DEV)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

# The long runs: kills, mutations, fuzzing at full count.
soak: $(DEV)
	$(BIN)/python -m pytest -m soak

sanitize: $(DEV)
	$(BIN)/python tests/support/scripts/sanitize_ops.py

# What can only be proved on a GPU: a page of results, and out/gpu-check.json. Without a GPU it says so.
gpu-check: $(DEV)
	PYTHONPATH=.:tests $(BIN)/python -m support.gpu

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
