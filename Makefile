# Two commands for a newcomer: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
OUT ?= demo
WORKERS ?= 2
DISPLAYED := $(or $(DISPLAY),$(WAYLAND_DISPLAY))
MANIFEST := pyproject.toml constraints.txt

.PHONY: demo install test lint docs display bench kills clean

demo: $(if $(DISPLAYED),$(VENV)/.all,$(VENV)/.core)
	$(BIN)/napari-mosaik demo --out $(OUT)

install: $(VENV)/.all

test: $(VENV)/.test
	$(MAKE) -j3 lint docs display
	sh .ci/with-display $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

lint: $(VENV)/.test
	$(BIN)/ruff format --check src tests benchmarks docs
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos src tests docs benchmarks README.md CHANGELOG.md CONTRIBUTING.md sample_data/README.md

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python docs/link_terms.py --check

display:
	sh .ci/system-packages

bench: $(VENV)/.core
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

kills: $(VENV)/.core
	$(BIN)/python benchmarks/kills.py

clean:
	rm -rf $(VENV) $(OUT) site .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; say which: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(MANIFEST) | $(BIN)/python
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.all: $(VENV)/.core
	$(PIP) install -q -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install -q -c constraints.txt -e '.[all,test,docs]'
	@touch $@
