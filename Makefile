# `make demo` and `make test` need nothing but python3 (3.11 or newer) with venv; a C++ compiler makes them faster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2

.PHONY: setup demo demo-long test lint soak sanitize gpu-check clean
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-nodeps.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --requirement requirements-nodeps.txt
	touch $@

# Trains a preset, then samples, draws and measures what it has come to.
define shown
	$(BIN)/python train.py --cfg=$(1) --outdir=$(2)
	set -e; run=$$(ls -d $(2)/[0-9]* | tail -n 1); network=$$(ls $$run/network-snapshot-*.pkl | tail -n 1); \
	$(BIN)/python generate.py grid --network=$$network --seeds=0-79 --columns=16 --scale=2 --out=$$run/samples.png; \
	$(BIN)/python -m training.sampling.demo --run=$$run
endef

demo: setup
	$(call shown,demo,out/demo)

# The same recipe left alone: about an hour.
demo-long: setup
	$(call shown,demo_long,out/demo-long)

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The long runs: kills, mutations, fuzzing at full count.
soak: setup
	$(BIN)/python -m pytest -m soak

sanitize: setup
	$(BIN)/python tests/support/scripts/sanitize_ops.py

# What can only be proved on a GPU: a page of results, and out/gpu-check.json. Without a GPU it says so.
gpu-check: setup
	PYTHONPATH=.:tests $(BIN)/python -m support.gpu

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
