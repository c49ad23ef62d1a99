# All commands run in $(VENV), which `make install` builds; nothing else on the machine is touched.

# Read by GNU OpenMP: long spinning at barriers makes training crawl on a machine that is not idle.
export GOMP_SPINCOUNT ?= 1000

VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BROWSER_TOOLS := $(VENV)/.installed-browser
# The first Python that can build a virtual environment for this package; looked up only when needed.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
PIP_ARGS ?=
PYTEST_ARGS ?=
# Each process needs about 2 GB; a file of tests runs in one process, so that its fixtures are made once.
WORKERS ?= 2
# GNU libc keeps what is freed: evaluating large batches spends a fifth of its time on getting pages back.
KEEP_MEMORY := MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
PYTEST := OMP_NUM_THREADS=1 $(KEEP_MEMORY) $(BIN)/python -m pytest \
	--numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart check lint types imports spelling tables docs test browser ray format build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=...       the Python (>= 3.11) for the virtual environment; found if not given"
	@echo "  VENV=...         the virtual environment; .venv if not given"
	@echo "  PIP_ARGS=...     more arguments for pip, for example another package index"
	@echo "  PYTEST_ARGS=...  more arguments for pytest, for example '-k registry'"
	@echo "  WORKERS=...      test processes side by side; 2 if not given, 0 for none but pytest itself"
	@echo "  PACAVIT_DATA=... folder that holds data/ and reference/; turns on tests with real images"

install: $(INSTALLED) ## virtual environment with the package and its tools, in tested versions

quickstart: $(INSTALLED) ## train on handwritten digits with four clusterings and compare them (minutes)
	$(BIN)/python examples/quickstart.py

check: lint types imports spelling docs test browser ## everything that CI checks

lint: $(INSTALLED) ## style and common mistakes (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## static types (mypy)
	$(BIN)/mypy

imports: $(INSTALLED) ## who may import whom (import-linter)
	$(BIN)/lint-imports --no-logo

spelling: $(INSTALLED) ## spelling (codespell)
	$(BIN)/codespell

tables: $(INSTALLED) ## tables of the documents, from the results in benchmarks/results
	$(BIN)/python docs/tables.py

docs: $(INSTALLED) ## documentation into site/, with warnings as errors (Zensical)
	$(BIN)/python docs/build_site.py

test: $(INSTALLED) ## tests that need neither a GPU nor a browser (pytest)
	$(PYTEST) -m "not gpu and not browser" --durations 10 $(PYTEST_ARGS)

# Without PYTEST_ARGS: a choice among all tests may leave none of these few, which pytest calls an error.
browser: $(BROWSER_TOOLS) ## tests of pages in a headless Chromium; skipped where there is none
	$(PYTEST) -m browser

# In an environment of its own, because Ray pins versions of other packages.
ray: ## tests of the examples on a local Ray cluster, in .venv-ray
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install -c constraints.txt -e '.[dev]' 'ray[data,serve]'
	.venv-ray/bin/python -m pytest -m ray tests/examples

format: $(INSTALLED) ## rewrite the code in the house style (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

build: $(INSTALLED) ## wheel and source archive, into dist/
	rm -rf build  # setuptools would pack what an older build left there
	$(BIN)/python -m build

clean: ## remove what builds and tools left; keeps .venv and runs
	rm -rf build dist site .cache src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "no Python >= 3.11 with venv and pip found; install one or name it with PYTHON=..." >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --no-input --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]'
	@touch $@

$(BROWSER_TOOLS): $(INSTALLED)
	$(BIN)/python -m pip install --no-input --constraint constraints.txt $(PIP_ARGS) --editable '.[browser]'
	@touch $@
