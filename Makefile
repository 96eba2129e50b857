# make demo, make test: each does all its set-up in .venv, says what it does, and is quick the second time.
# make e2e needs root and Debian's containerd besides, and builds a cluster the first time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/knative-sponge
export PIP_CACHE_DIR ?= $(CACHE)/pip
export PIP_DISABLE_PIP_VERSION_CHECK = 1
FOREIGN := $(CACHE)/foreign-$(shell cksum < requirements/foreign.txt | cut -d' ' -f1)
SERVERS := $(patsubst requirements/servers/%.txt,%,$(wildcard requirements/servers/*.txt))
FUZZ := $(CACHE)/fuzz-$(shell cksum < requirements/fuzz.txt | cut -d' ' -f1)
MINUTES ?= 6
PIP_INSTALL = $(BIN)/python -m pip install --quiet --no-deps
LOCKED = --require-hashes

.PHONY: help demo test lint bench servers mutants fuzz e2e cluster-up cluster-down images clean

help:
	@echo "make demo   serve a real model on this machine and compare four strategies (about 4 minutes the first time)"
	@echo "make test   all tests"
	@echo "make lint   formatting, lints, types, dead code, import borders"
	@echo "make bench  the speed figures"
	@echo "make servers   sponge run before every model server of docs/servers.md (about 1 GB, once)"
	@echo "make mutants   does a test fail when one token of the pure code is wrong? (half an hour; MUTANTS=core/batching for one room)"
	@echo "make fuzz   coverage-guided fuzzing of all that strangers send (MINUTES=6 for six targets together; FUZZ_TARGETS=head for one)"
	@echo "make e2e    a real cluster with Knative, the product on it, all end-to-end tests (docs/e2e.md)"
	@echo "make cluster-up, make cluster-down   only the cluster"
	@echo "make images the product's container images (images/README.md)"
	@echo "make clean  remove what the others made in this directory"

demo: $(VENV)/demo.stamp
	@$(BIN)/sponge demo $(DEMO)

test: $(VENV)/dev.stamp $(FOREIGN)/stamp
	@echo "==> tests"
	@SPONGE_FOREIGN_PYTHON=$(FOREIGN)/bin/python $(BIN)/python -m pytest $(PYTEST)

lint: $(VENV)/dev.stamp
	@echo "==> ruff, mypy, vulture, import-linter"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m vulture knative_sponge
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

bench: $(VENV)/dev.stamp
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	  echo "==> $$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; \
	done

servers: $(VENV)/dev.stamp $(FOREIGN)/stamp $(SERVERS:%=$(CACHE)/servers-%/stamp)
	@echo "==> model servers"
	@SPONGE_FOREIGN_PYTHON=$(FOREIGN)/bin/python SPONGE_SERVERS=$(CACHE)/servers- $(BIN)/python -m pytest tests/servers $(PYTEST)

mutants: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.mutants $(MUTANTS)

fuzz: $(FUZZ)/stamp
	@$(FUZZ)/bin/python -m fuzz --minutes $(MINUTES) $(FUZZ_TARGETS)

e2e: $(VENV)/dev.stamp
	@$(BIN)/python -m e2e $(E2E)

cluster-up: $(VENV)/dev.stamp
	@$(BIN)/python -m e2e.cluster up

cluster-down: $(VENV)/dev.stamp
	@$(BIN)/python -m e2e.cluster down

images: $(VENV)/dev.stamp
	@$(BIN)/python -m e2e.cluster.imaging queue-proxy autoscaler ocr-server

clean:
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12 …"; exit 1; }
	@echo "==> making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: requirements/demo.txt requirements/data.txt pyproject.toml | $(VENV)/bin/python
	@echo "==> installing what the demo needs into $(VENV) (about 150 MB)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements/demo.txt -r requirements/data.txt
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt requirements/data.txt pyproject.toml | $(VENV)/bin/python
	@echo "==> installing what the tests need into $(VENV) (about 200 MB)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements/dev.txt -r requirements/data.txt
	@$(PIP_INSTALL) --editable .
	@touch $@

$(CACHE)/servers-%/stamp: requirements/servers/%.txt
	@echo "==> installing model servers into $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --no-deps $(LOCKED) -r $<
	@touch $@

$(FOREIGN)/stamp: requirements/foreign.txt
	@echo "==> installing a model server that is not ours into $(FOREIGN) (about 330 MB, once)"
	@$(PYTHON) -m venv $(FOREIGN)
	@$(FOREIGN)/bin/python -m pip install --quiet --no-deps $(LOCKED) -r requirements/foreign.txt
	@touch $@

$(FUZZ)/stamp: requirements/fuzz.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "The fuzzer has wheels for Python 3.11 to 3.13; name one with make PYTHON=python3.12 …"; exit 1; }
	@echo "==> installing the fuzzer into $(FUZZ) (about 150 MB, once)"
	@$(PYTHON) -m venv $(FUZZ)
	@$(FUZZ)/bin/python -m pip install --quiet --no-deps $(LOCKED) -r requirements/fuzz.txt
	@touch $@
